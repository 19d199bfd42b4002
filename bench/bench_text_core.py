"""The C++ text core and its Python twin on AlpacaEval-sized texts: response against instruction."""

import pytest

from flipfast.metrics import overlap_f1
from flipfast.metrics.word_f1_py import word_f1


def twin(predictions, references):
    return [word_f1(*pair) for pair in zip(predictions, references, strict=True)]


def report(benchmark, n_pairs):
    """Add the rate of the fastest round: the others measure what else the machine did."""
    benchmark.extra_info["pairs_per_s"] = round(n_pairs / benchmark.stats.stats.min)


@pytest.mark.parametrize("threads", [1, 2, 0], ids="threads={}".format)
def bench_core(benchmark, real_pairs, threads):
    expected = [list(row) for row in twin(*real_pairs)]
    assert overlap_f1(*real_pairs, threads=threads).tolist() == expected
    benchmark(overlap_f1, *real_pairs, threads=threads)
    report(benchmark, len(expected))


def bench_twin(benchmark, real_pairs):
    benchmark(twin, *real_pairs)
    report(benchmark, len(real_pairs[0]))
