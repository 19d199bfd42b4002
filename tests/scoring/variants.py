"""Compiled variants of kernels that a reward asks for: at load, and in scoring; JSON to stdout.

A program of its own: the tests' process may run Triton as an interpreter, which compiles nothing.
Here nothing is compiled either; what would be is noted.
"""

import json
import sys

from bench.gpu.rehearsal import pretend
from tests.kernels.launches import noted


def main():
    pretend(compiles=True)
    found = noted()
    from flipfast import FlipReward

    reward = FlipReward(device="cuda", memory=3e8)
    at_load = set(found)
    for n in (1, 3, 4, 16, 33):
        reward.score([f"Name {i} of {n}." for i in range(n)], [f"{i} of {n}" for i in range(n)])
    kernels = sorted({name for name, _ in at_load})
    json.dump({"kernels": kernels, "later": sorted(found.keys() - at_load)}, sys.stdout)


if __name__ == "__main__":
    main()
