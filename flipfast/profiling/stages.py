"""Records a stage around every part of a run while it is profiled.

Functions and methods are replaced by wrappers that record a stage, and restored at the end: a run
that is not profiled has no overhead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from importlib import import_module
from typing import Any

from flipfast.backends.base import Inverter
from flipfast.engine.attention.base import AttentionBackend
from flipfast.engine.cuda_graphs import StepGraphs
from flipfast.engine.ops.base import Linear, Ops
from flipfast.profiling import costs
from flipfast.profiling.recorder import LazyCost, Recorder

# Module, name in it, stage, whether the work is on the device.
PARTS = (
    ("flipfast.reward", "FlipReward.score", "rest", False),
    ("flipfast.prompts.rendering", "PromptRenderer.render", "prompts", False),
    ("flipfast.engine.scheduler", "Scheduler.plan", "plan", False),
    ("flipfast.engine.drafting", "Drafting.extend", "drafts", False),
    ("flipfast.engine.drafting", "Drafting.learn", "drafts", False),
    ("flipfast.engine.model_runner", "ModelRunner._run", "step, rest", True),  # in its stream
    ("flipfast.engine.model_runner", "StepResult.wait", "wait for tokens", False),
    ("flipfast.scoring.reading", "extract_instruction", "parsing", False),
    ("flipfast.scoring.samples", "overlap_f1", "word F1", False),
)
# The same, for modules that not every run loads.
DEVICE_PARTS = (
    ("flipfast.scoring.device_scoring", "reference_words", "reference words", False),
    ("flipfast.scoring.device_scoring", "find_spans", "find spans", True),
    ("flipfast.scoring.device_scoring", "word_f1", "word F1 from ids", True),
)
# Method and stage, for any inverter.
INVERTER_PARTS = (
    ("generate", "inverter, rest"),
    ("generate_into", "inverter, rest"),
    ("decode", "decoding"),
)
_MAKERS = ("linear", "head", "table", "scratch_bytes")  # of Ops, called when a model is built


@contextmanager
def instrumented(recorder: Recorder) -> Iterator[None]:
    """Record every stage inside the context, without CUDA graphs, which would hide stages.

    Only classes that exist at the start are instrumented: load the model first.
    """
    with ExitStack() as stack:
        for module, name, stage, on_device in (*PARTS, *DEVICE_PARTS):
            if (module, name, stage, on_device) in PARTS or module in sys.modules:
                owner, attribute = _owner(module, name)
                _patch(stack, owner, attribute, _timed(recorder, stage, on_device))
        for kind in _family(Inverter):
            for name, stage in INVERTER_PARTS:
                _patch_own(stack, kind, name, _timed(recorder, stage, False))
        for kind in _family(Ops):
            for name in _public_methods(kind):
                _patch_own(stack, kind, name, _operation(recorder, name, costs.OPS.get(name)))
        for kind in _family(Linear):
            _patch_own(stack, kind, "__call__", _product(recorder))
        for kind in _family(AttentionBackend):
            _patch_own(stack, kind, "attend", _operation(recorder, "attention", costs.attend))
            _patch_own(stack, kind, "write", _operation(recorder, "write keys", costs.write))
        _patch(stack, StepGraphs, "fits", lambda old: lambda self, batch: False)
        yield


Wrapper = Callable[[Callable[..., Any]], Callable[..., Any]]


def _timed(recorder: Recorder, stage: str, on_device: bool) -> Wrapper:
    def wrap(old: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(old)
        def call(*args: Any, **kwargs: Any) -> Any:
            with recorder.stage(stage, on_device=on_device):
                return old(*args, **kwargs)

        return call

    return wrap


def _operation(recorder: Recorder, stage: str, formula: costs.Formula | None) -> Wrapper:
    """Record an operation with its work; operations that it calls are part of it."""

    def wrap(old: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(old)
        def call(*args: Any, **kwargs: Any) -> Any:
            if recorder.in_leaf:
                return old(*args, **kwargs)
            with recorder.stage(stage, on_device=True, leaf=True) as note:
                result = old(*args, **kwargs)
                if formula is not None:
                    # An unsupported fused operation returns None.
                    missing = stage.startswith("fused_") and result is None
                    note(None if missing else formula(*args, **kwargs))
            return result

        return call

    return wrap


def _product(recorder: Recorder) -> Wrapper:
    def wrap(old: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(old)
        def call(self: Linear, *args: Any, **kwargs: Any) -> Any:
            def formula(*args: Any, **kwargs: Any) -> LazyCost:
                return costs.product(self, *args, **kwargs)

            stage = f"product {self.n_out} x {self.n_in}"
            bound = _operation(recorder, stage, formula)(lambda *a, **k: old(self, *a, **k))
            return bound(*args, **kwargs)

        return call

    return wrap


def _family(kind: type) -> list[type]:
    """Return a class and all its subclasses defined so far."""
    children: list[type] = kind.__subclasses__()
    return [kind, *(found for child in children for found in _family(child))]


def _public_methods(kind: type) -> list[str]:
    return [
        name
        for name, value in vars(kind).items()
        if callable(value) and not name.startswith("_") and name not in _MAKERS
    ]


def _owner(module: str, name: str) -> tuple[Any, str]:
    """Return the owner of a dotted name such as "Scheduler.plan", and the name's last part."""
    *path, last = name.split(".")
    owner: Any = import_module(module)
    for part in path:
        owner = getattr(owner, part)
    return owner, last


def _patch_own(stack: ExitStack, kind: type, name: str, wrapper: Wrapper) -> None:
    """Replace a method if the class itself defines it and it is not abstract."""
    method = vars(kind).get(name)
    if method is not None and not getattr(method, "__isabstractmethod__", False):
        _patch(stack, kind, name, wrapper)


def _patch(stack: ExitStack, owner: Any, name: str, wrapper: Wrapper) -> None:
    old = vars(owner)[name]
    stack.callback(setattr, owner, name, old)
    setattr(owner, name, wrapper(old))
