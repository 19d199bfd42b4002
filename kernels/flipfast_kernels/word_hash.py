"""Composable 64-bit word hashes: the hash of a concatenation follows from the parts' hashes.

h(uv) = h(u) * BASE**len(v) + h(v) modulo 2**64, a polynomial in BASE over one value per byte (Karp
and Rabin 1987). `csrc/text/word_hash.cc` has the same constants.

The byte values come from splitmix64 (Steele, Lea and Flood 2014), so that neighboring or swapped
letters differ in all their bits, and BASE is 5 modulo 8, so its powers have the longest possible
period. Two different words collide by chance once in about 2**64 pairs. Modulo a power of two some
words collide whatever BASE is (Thue-Morse words of 1024 letters), so words longer than LONGEST_WORD
are left to the text path.
"""

from __future__ import annotations

BASE = 0x9E3779B97F4A7C15
SEED = 0x243F6A8885A308D3  # the first fractional digits of pi
LONGEST_WORD = 128  # letters
_MASK = (1 << 64) - 1


def _splitmix64(state: int) -> int:
    z = (state + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def as_int64(value: int) -> int:
    """The signed integer with the same 64 bits, as torch and Triton store it."""
    return value - (1 << 64) if value >> 63 else value


LETTERS = tuple(_splitmix64(SEED + byte) for byte in range(256))  # the value of each byte


def hash_bytes(word: bytes) -> int:
    """The hash of a word's bytes, as a signed 64-bit integer; 0 if empty."""
    value = 0
    for byte in word:
        value = (value * BASE + LETTERS[byte]) & _MASK
    return as_int64(value)


def power(n: int) -> int:
    """BASE**n modulo 2**64, as a signed 64-bit integer: shifts a hash past n more bytes."""
    return as_int64(pow(BASE, n, 1 << 64))


ARTICLES = tuple(hash_bytes(word) for word in (b"a", b"an", b"the"))
