"""Metrics that compare an inferred instruction with the true one; one file per metric."""

from flipfast.metrics.word_f1 import CORE_AVAILABLE, overlap_f1

__all__ = ["CORE_AVAILABLE", "overlap_f1"]
