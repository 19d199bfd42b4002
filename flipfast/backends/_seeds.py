"""Seeds for other engines."""

_PRIME = 2**31 - 1


def narrow_seed(seed: int) -> int:
    """A request's seed of 64 bits as one that every engine takes, in [0, 2^31 - 1).

    Engines keep seeds in signed or in narrower integers, and some take -1 for none. Of 64 samples
    of a prompt, two get the same seed once in a million prompts.
    """
    return seed % _PRIME
