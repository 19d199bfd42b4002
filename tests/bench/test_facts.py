"""What a device's folder is called, and what of a benchmark's notes is a figure."""

import pytest
import torch

from bench import facts


@pytest.mark.parametrize(
    "name", ["NVIDIA H200", "NVIDIA A100-SXM4-80GB", "NVIDIA GeForce RTX 4090"]
)
def test_a_gpu_has_one_name_for_results_and_tuning(name, monkeypatch):
    tuning = pytest.importorskip("flipfast_kernels.tuning")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert f"{facts.device_folder()}.json" == tuning.file_name(name)


def test_a_cpu_has_a_folder_without_marks(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(facts, "processor", lambda: "Intel(R) Xeon(R) @ 2.50GHz, AVX512")
    assert facts.device_folder() == "intel-xeon-2-50ghz-avx512"


def test_conditions_are_no_figures():
    info = {"date": "2026-01-02", "commit": "abc", "torch": "2.13", "threads": 2, "us": 1.5}
    expected = {"date": "2026-01-02", "threads": "2", "commit": "abc", "torch": "2.13"}
    assert facts.conditions_of(info) == expected


def test_a_copy_without_history_has_the_commit_that_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(facts, "ROOT", tmp_path)
    for told, expected in (("abc123", "abc123"), ("", "unknown")):
        facts.versions.cache_clear()
        monkeypatch.setenv("FLIPFAST_COMMIT", told)
        assert facts.versions()["commit"] == expected
    facts.versions.cache_clear()
