"""Converts seeds for other engines."""

_PRIME = 2**31 - 1


def narrow_seed(seed: int) -> int:
    """Reduce a request's 64-bit seed to one that every engine accepts, in [0, 2^31 - 1).

    Engines store seeds in signed or narrower integers, and some take -1 to mean none. With 64
    samples per prompt, two get the same seed about once in a million prompts.
    """
    return seed % _PRIME
