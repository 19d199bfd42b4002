"""A peer in a process of its own: its threads, memory and packages are no concern of the others."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from bench.facts import peak_memory_mib
from bench.peers.base import Job, Peer, PeerUnavailable

OURS = "flipfast"
PEERS: dict[str, tuple[str, str, dict[str, Any]]] = {  # module, class, options besides the job
    OURS: ("engines", "Native", {}),
    "flipfast-fast": ("engines", "Native", {"deterministic": False}),
    "flipfast-float": ("engines", "Native", {"weights": "float"}),
    "flipfast-scripted": ("engines", "Scripted", {}),
    "flipfast-scripted-float": ("engines", "Scripted", {"weights": "float"}),
    "transformers": ("huggingface", "Generate", {}),
    "transformers-continuous": ("huggingface", "Continuous", {}),
    "vllm": ("engines", "Vllm", {}),
    "sglang": ("engines", "Sglang", {}),
    "llama.cpp": ("llama_cpp", "LlamaCpp", {}),
    "ctranslate2": ("ctranslate2", "Ctranslate2", {}),
}
_CLOSE_SECONDS = 10.0


@dataclass(frozen=True)
class Run:
    """What a peer gave."""

    outputs: list[list[Any]]  # new token ids of each prompt, or what else was asked for
    seconds: float
    peak_memory_mib: int  # so far; 0 where another process has it
    n_tokens: int  # new ones; 0 where they are not counted


class PeerProcess:
    """A loaded peer, with `version` and `settings` as it tells them.

    Args:
        name: one of PEERS.
        job: what it gets ready for.
        paths: folders whose packages it finds before all others.
        limit_s: seconds from now after which it is ended.

    Raises:
        PeerUnavailable: it cannot be loaded here, or not in time.
    """

    def __init__(
        self, name: str, job: Job, *, paths: Sequence[str] = (), limit_s: float = 3600.0
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._end = time.monotonic() + limit_s
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, *PEERS[name], job, list(paths))
        self._process = context.Process(target=_serve, args=arguments)
        self._process.start()
        theirs.close()
        self.version, self.settings = self._receive("load")

    def run(
        self,
        prompts: Sequence[list[int]],
        max_new_tokens: int,
        *,
        keep: bool = False,
        **hints: Any,
    ) -> Run:
        """Continue prompts; see Peer.generate.

        Args:
            prompts, max_new_tokens, hints: as there.
            keep: what earlier calls left in caches.

        Raises:
            PeerUnavailable: it failed, or its time was over.
        """
        try:
            self._pipe.send((list(prompts), max_new_tokens, keep, hints))
        except OSError:
            raise PeerUnavailable("its process has ended") from None
        return Run(*self._receive("answer"))

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(_CLOSE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self, what: str) -> Any:
        """What the process sends; where that is nothing of use it is ended."""
        try:
            in_time = self._pipe.poll(max(0.0, self._end - time.monotonic()))
            found = self._pipe.recv() if in_time else f"its time was over before it could {what}"
        except (EOFError, OSError):
            self._process.join(_CLOSE_SECONDS)
            found = f"it died with exit code {self._process.exitcode} before it could {what}"
        if isinstance(found, str):
            self._process.kill()
            self.close()
            raise PeerUnavailable(found)
        return found


def _serve(
    pipe: Connection, module: str, kind: str, options: Any, job: Job, paths: list[str]
) -> None:
    """Load the peer and answer until the pipe is closed; a string says why there is no answer."""
    sys.path[:0] = paths
    inherited = os.environ.get("PYTHONPATH")  # of processes that the peer starts
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [inherited])])
    try:
        load = getattr(importlib.import_module(f"bench.peers.{module}"), kind)
        peer: Peer = load(job, **options)
        pipe.send((peer.version, peer.settings))
        while True:
            prompts, max_new_tokens, keep, hints = pipe.recv()
            if not keep:
                peer.forget()
            started = time.perf_counter()
            outputs = peer.generate(prompts, max_new_tokens, **hints)
            seconds = time.perf_counter() - started
            peak = peak_memory_mib(job.device)
            pipe.send((outputs, seconds, peak, sum(map(len, outputs))))
    except EOFError:
        peer.close()
    except ModuleNotFoundError as error:
        pipe.send(f"{error.name} is not installed")
    except PeerUnavailable as error:
        pipe.send(str(error))
    except Exception as error:
        traceback.print_exc()
        pipe.send(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
