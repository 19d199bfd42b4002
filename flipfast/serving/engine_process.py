"""The child's side of an engine process.

The parent sends pickled lists of calls and receives pickled lists of answers over a private
socket pair. The process exits when its parent is gone or its engine has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import socket
import struct
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, Any

from flipfast import errors
from flipfast.config import FlipConfig
from flipfast.env import show_one_gpu
from flipfast.errors import ConfigError, FlipfastError, UnavailableError
from flipfast.serving.scorer import ServedScorer

Call = tuple[int, str, tuple[Any, ...], dict[str, Any]]  # call number, method, args, kwargs

HEADER = struct.Struct("!Q")  # length of the pickled answers that follow
CANCEL = "cancel"  # in place of a method: cancel the call with this number
STARTED = 0  # number of the answer that says the engine accepts calls
LAST_WORDS = -1  # number of the error that ends the process


@dataclass(frozen=True)
class EngineSpec:
    """What one of several engine processes runs.

    Attributes:
        config: of the reward, the same in every process.
        max_queue: maximum number of rows waiting in it.
        worker: index of the process, from 0.
        n_workers: number of processes.
    """

    config: FlipConfig
    max_queue: int
    worker: int
    n_workers: int


EngineFactory = Callable[[EngineSpec], ServedScorer]


def native_engine(spec: EngineSpec) -> ServedScorer:
    """Create an engine on its own GPU, or on its share of the CPU's threads and memory.

    Raises:
        ConfigError: there are fewer GPUs than processes, or another option is invalid.
        ModelLoadError: the model cannot be loaded.
    """
    import torch

    from flipfast.engine.options import MEMORY_SHARE
    from flipfast.serving.async_engine import AsyncFlipEngine

    config, n = spec.config, spec.n_workers
    # CUDA reads the list of visible GPUs only once; counting them does not initialize it.
    n_gpus = torch.cuda.device_count() if config.device in (None, "cuda") else 0
    if n_gpus:
        if n > n_gpus:
            raise ConfigError(f"{n} workers need a GPU each, and there are {n_gpus}: take fewer")
        show_one_gpu(spec.worker)
    elif n > 1:
        torch.set_num_threads(max(1, (torch.get_num_threads() + spec.worker) // n))
        memory = MEMORY_SHARE["cpu"] if config.memory is None else config.memory
        config = replace(config, memory=memory / n if memory <= 1 else memory)
    return AsyncFlipEngine(config=config, max_queue=spec.max_queue)


def main(pipe: socket.socket, stream: IO[bytes]) -> None:
    """Serve the parent until it goes away.

    Args:
        pipe: socket to the parent.
        stream: input from the parent: first a factory and its spec, then lists of calls.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent ends this process, once it has drained
    asyncio.run(_Server(pipe, stream).run())


class _Server:
    def __init__(self, pipe: socket.socket, stream: IO[bytes]) -> None:
        self._pipe = pipe
        self._stream = stream
        self._scorer: ServedScorer | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._answers: list[tuple[int, object]] = []

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            factory, spec = pickle.load(self._stream)
            # A thread, because the parent's exit must be noticed even while the model loads.
            threading.Thread(target=self._read, name="flipfast-calls", daemon=True).start()
            self._scorer = factory(spec)
        except Exception as error:
            self._fail(error)
        self._answer(STARTED, None)
        await asyncio.Event().wait()

    def _read(self) -> None:
        try:
            while True:
                calls = pickle.load(self._stream)
                self._loop.call_soon_threadsafe(self._begin, calls)
        except (EOFError, OSError):  # the parent is gone
            os._exit(0)
        except Exception:
            traceback.print_exc()
            os._exit(1)

    def _begin(self, calls: list[Call]) -> None:
        for number, method, args, kwargs in calls:
            if method != CANCEL:
                task = self._loop.create_task(self._run(number, method, args, kwargs))
                self._tasks[number] = task
                task.add_done_callback(partial(self._forget, number))
            elif number in self._tasks:
                self._tasks[number].cancel()

    def _forget(self, number: int, _: asyncio.Task[None]) -> None:
        del self._tasks[number]

    async def _run(
        self, number: int, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            self._answer(number, await getattr(self._scorer, method)(*args, **kwargs))
        except FlipfastError as error:
            self._answer(number, _portable(error))
        except Exception as error:  # the engine's state is unknown now
            self._fail(error)

    def _answer(self, number: int, value: object) -> None:
        if not self._answers:
            self._loop.call_soon(self._send)
        self._answers.append((number, value))

    def _send(self) -> None:
        """Send all answers of one event loop iteration together."""
        answers, self._answers = self._answers, []
        status = self._scorer.status() if self._scorer is not None else None
        frame = pickle.dumps((answers, status))
        with contextlib.suppress(OSError):  # the parent is gone, which ends this process anyway
            self._pipe.sendall(HEADER.pack(len(frame)) + frame)
        if status is not None and status.state == "failed":
            os._exit(1)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, FlipfastError):
            traceback.print_exception(error)
        self._answer(LAST_WORDS, _portable(error))
        self._send()
        os._exit(1)


def _portable(error: Exception) -> Exception:
    """Convert an error to one that the parent can unpickle without the packages loaded here."""
    if type(error).__module__ == errors.__name__:
        return error
    for kind in type(error).__mro__:
        if kind.__module__ == errors.__name__ and issubclass(kind, FlipfastError):
            return kind(str(error))
    return UnavailableError(f"{type(error).__name__}: {error}")
