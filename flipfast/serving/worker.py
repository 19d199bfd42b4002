"""The parent's side of an engine process."""

from __future__ import annotations

import asyncio
import itertools
import logging
import pickle
import signal
import socket
import subprocess
import sys
from typing import Any

from flipfast.errors import UnavailableError
from flipfast.serving.engine_process import (
    CANCEL,
    HEADER,
    LAST_WORDS,
    STARTED,
    Call,
    EngineFactory,
    EngineSpec,
)
from flipfast.serving.scorer import EngineStatus

_log = logging.getLogger(__name__)

# A fresh interpreter has none of the parent's threads, locks and CUDA state, and does not rerun
# the parent's script. It gets the parent's sys.path.
_PROGRAM = """
import pickle, socket, sys
pipe = socket.socket(fileno=int(sys.argv[1]))
stream = pipe.makefile("rb")
sys.path[:] = pickle.load(stream)
from flipfast.serving.engine_process import main
main(pipe, stream)
"""
_READ_AHEAD = 2**20  # bytes


class Worker:
    """One engine process; calls made in one event loop iteration are sent together.

    Attributes:
        status: its engine's, as of the last answers; None before the first.
        ready: whether rows may be sent to it. Set by its owner; False once the process has ended.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.status: EngineStatus | None = None
        self.ready = False
        self._process = process
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(STARTED + 1)
        self._started: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # Where a pool is closed meanwhile, nobody waits for it: asyncio need not tell of its error.
        self._started.add_done_callback(lambda started: started.cancelled() or started.exception())
        self._open = {STARTED: self._started}
        self._calls: list[Call] = []
        self._reason: str | None = None  # why it ended, or is about to
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def spawn(cls, factory: EngineFactory, spec: EngineSpec) -> Worker:
        """Start a process.

        Args:
            factory: creates the engine; the process imports it by name.
            spec: what to pass to it.
        """
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_READ_AHEAD)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C at the terminal is for the parent
            )
        writer.write(pickle.dumps(sys.path) + pickle.dumps((factory, spec)))
        return cls(process, reader, writer)

    @property
    def alive(self) -> bool:
        """Whether the process has neither ended nor is about to."""
        return self._reason is None

    @property
    def n_open(self) -> int:
        """Number of unanswered calls."""
        return len(self._open)

    async def started(self) -> None:
        """Wait until the engine can take calls.

        Raises:
            FlipfastError: raised by the factory; UnavailableError if it raised another exception
                or the process has ended.
        """
        await self._started

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the engine; cancelling this call cancels it there too.

        Raises:
            FlipfastError: raised by the method.
            UnavailableError: the process has ended.
        """
        if self._reason is not None:
            raise UnavailableError(self._reason)
        number = next(self._numbers)
        answer = self._open[number] = asyncio.get_running_loop().create_future()
        self._post((number, method, args, kwargs))
        try:
            return await answer
        finally:
            if self._open.pop(number, None) is not None:
                self._post((number, CANCEL, (), {}))

    def kill(self, why: str) -> None:
        """Kill the process; open calls raise UnavailableError with this reason."""
        self._end(why)

    async def ended(self) -> str:
        """Wait until the process is gone; returns why."""
        await asyncio.shield(self._listening)
        assert self._reason is not None
        return self._reason

    def _post(self, call: Call) -> None:
        if not self._calls:
            asyncio.get_running_loop().call_soon(self._send)
        self._calls.append(call)

    def _send(self) -> None:
        calls, self._calls = self._calls, []
        if self.alive:
            self._writer.write(pickle.dumps(calls))

    async def _listen(self) -> None:
        try:
            while True:
                (size,) = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                answers, self.status = pickle.loads(await self._reader.readexactly(size))
                for number, value in answers:
                    self._settle(number, value)
        except (asyncio.IncompleteReadError, OSError):
            pass  # the process has ended
        except Exception:  # the process must still be ended below
            _log.exception("an engine process has sent what cannot be read")
        finally:
            self.ready = False
            self._process.kill()
            code = await asyncio.to_thread(self._process.wait)
            self._end(f"the engine process {_fate(code)}")
            self._writer.close()

    def _settle(self, number: int, value: object) -> None:
        if number == LAST_WORDS:
            if not self._started.done():
                self._settle(STARTED, value)
            self._end(f"the engine has failed: {value}")
        answer = self._open.pop(number, None)
        if answer is None or answer.done():  # cancelled
            return
        if isinstance(value, Exception):
            answer.set_exception(value)
        else:
            answer.set_result(value)

    def _end(self, reason: str) -> None:
        """Accept no more calls, and fail the open ones with the first reason given."""
        self._reason = self._reason or reason
        self.ready = False
        self._process.kill()
        answers, self._open = self._open, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_exception(UnavailableError(self._reason))


def _fate(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"has ended with exit code {code}"
