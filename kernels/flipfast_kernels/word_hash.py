"""64-bit hashes of words that compose: the hash of two strings joined follows from theirs.

h(uv) = h(u) * BASE**len(v) + h(v) modulo 2**64, a polynomial in BASE over one value a byte (Karp
and Rabin 1987). `csrc/text/word_hash.h` has the same constants.

The values of the bytes come from splitmix64 (Steele, Lea and Flood 2014), so that neighbouring or
swapped letters differ in all their bits, and BASE is 5 modulo 8, whose powers repeat as late as
those of any number do. Two different words meet by chance once in about 2**64 pairs. Modulo a power
of two there are words that meet whatever BASE is (Thue and Morse's, of 1024 letters), so words
longer than LONGEST_WORD are left to the text itself.
"""

from __future__ import annotations

BASE = 0x9E3779B97F4A7C15
SEED = 0x243F6A8885A308D3  # the first digits of pi behind its point
LONGEST_WORD = 128  # letters
_MASK = (1 << 64) - 1


def _splitmix64(state: int) -> int:
    z = (state + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def as_int64(value: int) -> int:
    """The signed number with the same 64 bits, as torch and Triton hold it."""
    return value - (1 << 64) if value >> 63 else value


LETTERS = tuple(_splitmix64(SEED + byte) for byte in range(256))  # the value of each byte


def hash_bytes(word: bytes) -> int:
    """The hash of a word's bytes, as a signed 64-bit number; 0 for none."""
    value = 0
    for byte in word:
        value = (value * BASE + LETTERS[byte]) & _MASK
    return as_int64(value)


def power(n: int) -> int:
    """BASE**n modulo 2**64, as a signed 64-bit number: what moves a hash past n more bytes."""
    return as_int64(pow(BASE, n, 1 << 64))


ARTICLES = tuple(hash_bytes(word) for word in (b"a", b"an", b"the"))
