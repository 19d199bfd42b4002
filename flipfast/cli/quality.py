"""The commands that assess the quality of a reward: their options and what each calls."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from flipfast.cli.options import add_model_options, add_out_options

_USUAL_RATERS = ("flip", "pointwise", "pairwise", "listwise", "p_true")


def add_commands(commands: Any) -> None:
    """Add these commands to the parser's."""
    _add(commands, "eval", "accuracy on preferences, beside judges", _eval_options, _eval)
    _add(commands, "best-of-n", "the best response of each group", _best_of_n_options, _best_of_n)
    _add(commands, "attack", "what tricks in a response do to scores", _attack_options, _attack)
    _add(
        commands,
        "consistency",
        "whether a reward holds still: other instructions, wordings, seeds, number formats",
        _consistency_options,
        _consistency,
    )
    _add(commands, "explain", "which words made a reward", _explain_options, _explain)
    _add(commands, "credit", "which parts of a response made it", _credit_options, _credit)


def _add(
    commands: Any,
    name: str,
    purpose: str,
    add_options: Callable[[argparse.ArgumentParser], None],
    command: Callable[..., None],
) -> None:
    parser = commands.add_parser(name, help=purpose)
    add_options(parser)
    add_model_options(parser)
    parser.set_defaults(command=command)


def _add_raters(parser: argparse.ArgumentParser, usual: tuple[str, ...]) -> None:
    parser.add_argument(
        "--rater",
        action="append",
        dest="raters",
        metavar="NAME[:KEY=VALUE,...]",
        help=f"once for each; default: {' '.join(usual)}",
    )
    parser.set_defaults(usual=usual)


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE.png", help="draw the figures")
    parser.add_argument("--json-out", metavar="FILE.json", help="write figures and all scores")


def _eval_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "preferences",
        metavar="PREFERENCES",
        help="prompt, chosen, rejected, subset: .jsonl (also .gz, .zst), .json or .parquet",
    )
    _add_raters(parser, _USUAL_RATERS)
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs with other seeds")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N of each subset")
    _add_outputs(parser)


def _best_of_n_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("groups", metavar="GROUPS", help="rows as for score, or -")
    add_out_options(parser, "rows with their best")
    parser.add_argument(
        "--rater", default="flip", metavar="NAME[:KEY=VALUE,...]", help="default: %(default)s"
    )
    parser.add_argument(
        "--prune", action="store_true", help="end outputs that cannot win; same best, fewer scores"
    )


def _attack_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "groups", nargs="?", metavar="GROUPS.jsonl", help="rows; default: the package's groups"
    )
    _add_raters(parser, _USUAL_RATERS)
    parser.add_argument(
        "--attack",
        action="append",
        dest="attacks",
        metavar="NAME",
        help="only this family (keys) or attack (keys/colon); once for each",
    )
    parser.add_argument(
        "--strings",
        metavar="FILE",
        help=r"attacks of your own, one a line, with {instruction}, {response} and \n; "
        "they are the family strings",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N groups")
    parser.add_argument(
        "--climb", type=int, default=0, metavar="STEPS", help="let an attacker climb the reward"
    )
    _add_outputs(parser)


def _consistency_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "groups", nargs="?", metavar="GROUPS.jsonl", help="rows; default: the package's groups"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N groups")
    parser.add_argument("--seeds", type=int, default=4, metavar="N", help="of sampled inversions")
    _add_outputs(parser)


def _explain_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instruction", help="the true one")
    parser.add_argument("response", nargs="?", help="is inverted; or give --inferred")
    parser.add_argument("--inferred", help="an inferred instruction: no model is run")
    parser.add_argument("--context", help="what came before the response")
    parser.add_argument("--html", metavar="FILE", help="write a page, too")


def _credit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instruction", nargs="?", help="the true one")
    parser.add_argument("response", nargs="?", help="its sentences get credit")
    parser.add_argument("--messages", metavar="FILE.json", help="instead: an agent's turns do")
    parser.add_argument("--context", help="what came before the response")


def _eval(**arguments: Any) -> None:
    from flipfast.cli.evaluate import show_evaluation

    _call(show_evaluation, arguments, "preferences", "seeds", "limit", "plot", "json_out")


def _best_of_n(**arguments: Any) -> None:
    from flipfast.cli.best_of_n import write_best

    names = ("groups", "out", "resume", "overwrite", "rater", "prune")
    _call(write_best, arguments, *names)


def _attack(**arguments: Any) -> None:
    from flipfast.cli.attack import show_attacks

    names = ("groups", "attacks", "strings", "limit", "climb", "plot", "json_out")
    _call(show_attacks, arguments, *names)


def _consistency(**arguments: Any) -> None:
    from flipfast.cli.consistency import show_consistency

    _call(show_consistency, arguments, "groups", "limit", "seeds", "plot", "json_out")


def _explain(**arguments: Any) -> None:
    from flipfast.cli.explain import show_explanation

    _call(show_explanation, arguments, "instruction", "response", "inferred", "context", "html")


def _credit(**arguments: Any) -> None:
    from flipfast.cli.credit import show_credit

    _call(show_credit, arguments, "instruction", "response", "messages", "context")


def _call(show: Callable[..., None], arguments: dict[str, Any], *own: str) -> None:
    """Call a command with its own arguments, its raters if any, and the model's options."""
    named = {name: arguments.pop(name) for name in own}
    if "usual" in arguments:
        usual = arguments.pop("usual")
        named["raters"] = arguments.pop("raters") or list(usual)
    show(**named, options=arguments)
