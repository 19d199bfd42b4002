"""Measures how consistent a reward is across instructions, wordings, seeds and number formats.

One file per question; `changes` has the shared measures.
"""

from flipfast.quality.consistency.changes import (
    Change,
    Comparison,
    RankFlips,
    Run,
    change,
    rank_flips,
)
from flipfast.quality.consistency.formats import compare_formats
from flipfast.quality.consistency.matrix import InstructionMatrix, instruction_matrix
from flipfast.quality.consistency.seeds import SeedNoise, compare_seeds
from flipfast.quality.consistency.wordings import compare_wordings

__all__ = [
    "Change",
    "Comparison",
    "InstructionMatrix",
    "RankFlips",
    "Run",
    "SeedNoise",
    "change",
    "compare_formats",
    "compare_seeds",
    "compare_wordings",
    "instruction_matrix",
    "rank_flips",
]
