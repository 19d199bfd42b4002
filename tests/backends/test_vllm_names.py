"""The stand-in for vLLM against vLLM, where that is installed."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from tests.backends.vllm_stand_in import LLM_OPTIONS, PARAMS


def test_the_stand_in_has_no_name_that_vllm_lacks() -> None:
    vllm = pytest.importorskip("vllm", reason="compares with an installed vLLM")
    from vllm.engine.arg_utils import EngineArgs

    options = set(inspect.signature(vllm.LLM).parameters)
    options |= {field.name for field in dataclasses.fields(EngineArgs)}
    assert options >= LLM_OPTIONS
    assert set(PARAMS) <= set(inspect.signature(vllm.SamplingParams).parameters)
