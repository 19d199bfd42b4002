"""Attacks on raters: ways for a response to raise its score without being better."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules

from flipfast.errors import ConfigError
from flipfast.quality.attacks import families
from flipfast.quality.attacks.base import Attack, Case, from_text, special_tokens
from flipfast.quality.attacks.climbing import Climb, climb
from flipfast.quality.attacks.run import Figures, Outcome, Pair, Trial, figures, run_attacks
from flipfast.quality.attacks.strings import read_strings

__all__ = [
    "Attack",
    "Case",
    "Climb",
    "Figures",
    "Outcome",
    "Pair",
    "Trial",
    "climb",
    "figures",
    "from_text",
    "load_attacks",
    "read_strings",
    "run_attacks",
    "special_tokens",
]


def load_attacks(names: Sequence[str] | None = None, more: Sequence[Attack] = ()) -> list[Attack]:
    """Load attacks of the suite, in its order.

    Args:
        names: of attacks ("keys/colon") or whole families ("keys"); None takes all of them.
        more: additional attacks, placed after the suite's; `names` may select them, too.

    Raises:
        ConfigError: a name does not exist.
    """
    modules = (
        import_module(f"{families.__name__}.{module.name}")
        for module in iter_modules(families.__path__)
    )
    found: list[Attack] = [*(attack for module in modules for attack in module.ATTACKS), *more]
    if names is None:
        return found
    known = [attack.name for attack in found]
    known += dict.fromkeys(name.partition("/")[0] for name in known)
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no attack {name!r}: use one of {', '.join(known)}")
    return [attack for attack in found if {attack.name, attack.name.partition("/")[0]} & {*names}]
