"""Engines for tests of processes: they load in no time, and rows tell them what to do."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
from pathlib import Path

from flipfast.errors import ConfigError, FlipfastError, ModelLoadError, QueueFullError
from flipfast.scores import SCORE_KEYS
from flipfast.serving.scorer import Completion, EngineStatus, ServedScorer


def row(**values):
    counts = {"n_prompt_tokens": 1, "n_output_tokens": 1}
    return {**dict.fromkeys(SCORE_KEYS), **counts, "reward": 1.0, "status": "ok", **values}


class ObedientEngine(ServedScorer):
    """A row's response is what happens; without a special one, its `inferred` is the weights and
    its `error` the process."""

    def __init__(self, spec):
        self.spec = spec
        self.weights = "first"
        self.state = "ready"
        self.running = self.cancelled = self.rewards = 0

    async def score_row(self, instruction, response, context=None, *, caller=""):
        if response == "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if response == "segfault":
            ctypes.string_at(0)
        if response == "exit":
            os._exit(3)
        if response == "raise":
            raise RuntimeError("it is broken")
        if response == "fail":
            self.state = "failed"
            raise FlipfastError("the engine is broken")
        if response == "refuse":
            raise QueueFullError("it is full", 7.0)
        if response == "wait":
            await self.wait()
        self.rewards += 1
        return row(inferred=self.weights, error=str(os.getpid()))

    async def wait(self):
        self.running += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def score_chat(self, prompt, completion, *, caller=""):
        raise NotImplementedError

    async def complete(self, messages, sampling, *, seed=0, caller=""):
        text = f"{messages} {sampling.max_new_tokens} {seed} {caller}"
        return Completion(text, "stop", 1, 2)

    def status(self):
        counters = {"rewards": self.rewards, "cancelled": self.cancelled, "pages": 5}
        return EngineStatus(self.state, "obedient", 0, self.running, counters)

    async def sleep(self, *, drop_weights=False):
        if self.state == "asleep":
            raise FlipfastError("it sleeps already")
        self.state = "asleep"

    async def wake(self):
        if self.state != "asleep":
            raise FlipfastError("it does not sleep")
        self.state = "ready"

    async def update_weights(self, folder):
        """Fails where the folder has a file "fail", and once for a file "fail once"; takes as long
        as there is a file "wait"."""
        name = Path(folder)
        while (name / "wait").exists():
            await asyncio.sleep(0.005)
        if (name / "fail").exists():
            raise ModelLoadError(f"{name} is no good")
        try:
            (name / "fail once").unlink()
        except FileNotFoundError:
            self.weights = name.name
        else:
            raise ModelLoadError(f"{name} is no good just now")

    async def close(self):
        pass


class EchoEngine(ObedientEngine):
    """Infers a row's own texts."""

    async def score_row(self, instruction, response, context=None, *, caller=""):
        await super().score_row(instruction, response, context, caller=caller)
        return row(inferred=f"{instruction} {response}")


class ForeignError(ConfigError):
    """A class that the parent need not know."""


def wrong_option(spec):
    raise ForeignError(f"worker {spec.worker} of {spec.n_workers} does not like its option")


def no_model(spec):
    if spec.worker == 1:
        raise ModelLoadError("there is no such model")
    return ObedientEngine(spec)


def broken(spec):
    raise ZeroDivisionError("by zero")


def ends(spec):
    sys.exit(7)


def hangs(spec):
    threading.Event().wait()


def hangs_if(file, spec):
    """Never starts while there is such a file."""
    if Path(file).exists():
        hangs(spec)
    return ObedientEngine(spec)
