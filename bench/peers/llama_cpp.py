"""llama.cpp through its Python bindings: many sequences in a batch, joining as others end.

Its server does the same, in C++; here the loop that fills batches is Python, over the library's
own batches, memory and logits.
"""

from __future__ import annotations

import ctypes
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import llama_cpp as lib
import numpy as np
import safetensors

from bench.gguf_files import finish, qwen3_writer
from bench.peers.base import Job, shared_length

_SEQUENCES = 32
_F32 = 0  # ggml's type: for checkpoints, weights and cache as exact as ours
_BATCH = 2048


@dataclass
class _Row:
    """A request under way in one of the library's sequences."""

    place: int
    slot: int
    pending: list[int]  # tokens that are still to be computed
    position: int  # of the first of them
    output: list[int] = field(default_factory=list)


class LlamaCpp:
    """A context with as many sequences as our engine runs, and one for what they share.

    A GGUF file is computed with as it is, with the library's defaults. A checkpoint is written as
    one, in float32.
    """

    def __init__(self, job: Job) -> None:
        self.version = lib.__version__
        self._end_ids, self._n_slots = job.end_ids, min(_SEQUENCES, job.n_rows)
        lib.llama_log_set(_silent, ctypes.c_void_p())
        lib.llama_backend_init()
        self._model = _load_file(job.folder) if job.is_gguf else _load_checkpoint(job.folder)
        params = lib.llama_context_default_params()
        params.n_seq_max = self._n_slots + 1  # the first one holds what all prompts begin with
        params.n_ctx = params.n_seq_max * -(-job.longest // 256) * 256
        params.n_batch, params.n_ubatch = _BATCH, 512
        params.n_threads = params.n_threads_batch = job.threads
        if not job.is_gguf:
            params.type_k = params.type_v = _F32
        params.kv_unified = False
        self._context = lib.llama_init_from_model(self._model, params)
        self._memory = lib.llama_get_memory(self._context)
        self._batch = lib.llama_batch_init(_BATCH, 0, 1)
        self._vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model))
        self._n_shared, self._prefix = job.n_shared, list[int]()
        self._with_prefix: set[int] = set()  # sequences that begin with it
        types = ("the file's", "float16") if job.is_gguf else ("float32", "float32")
        self.settings: dict[str, Any] = {
            **{"weights": types[0], "cache": types[1], "sequences": self._n_slots},
            **{"n_batch": _BATCH, "n_ubatch": 512, "flash_attn": "auto"},
            "shared prefix": "computed once, copied",
            "build": lib.llama_print_system_info().decode(),
        }

    def forget(self) -> None:
        lib.llama_memory_clear(self._memory, False)
        self._prefix = []
        self._with_prefix.clear()

    def generate(
        self,
        prompts: Sequence[list[int]],
        max_new_tokens: int,
        *,
        outputs: list[list[int]] | None = None,
    ) -> list[list[int]]:
        """See Peer.generate; `outputs`, of max_new_tokens each, replace what the model chooses."""
        n_shared = shared_length(prompts) if self._n_shared is None else self._n_shared
        self._keep(prompts[0][:n_shared])
        waiting = list(enumerate(prompts))[::-1]
        free, running = list(range(1, self._n_slots + 1)), list[_Row]()
        found: list[list[int]] = [[] for _ in prompts]
        while waiting or running:
            while waiting and free:
                place, prompt = waiting.pop()
                running.append(self._admit(place, prompt, free.pop(), n_shared))
            for row in self._step(running):
                if outputs is not None:
                    row.pending[0] = row.output[-1] = outputs[row.place][len(row.output) - 1]
                ended = row.output[-1] in self._end_ids
                if ended or len(row.output) == max_new_tokens:
                    found[row.place] = row.output[:-1] if ended else row.output
                    running.remove(row)
                    free.append(row.slot)
        return found

    def close(self) -> None:
        lib.llama_batch_free(self._batch)
        lib.llama_free(self._context)
        lib.llama_model_free(self._model)

    def _keep(self, prefix: list[int]) -> None:
        """Have what prompts begin with in the first sequence."""
        if prefix == self._prefix:
            return
        self.forget()
        self._prefix = prefix
        for start in range(0, len(prefix), _BATCH):
            part = prefix[start : start + _BATCH]
            self._decode([(token, start + i, 0, False) for i, token in enumerate(part)])

    def _admit(self, place: int, prompt: list[int], slot: int, n_shared: int) -> _Row:
        if slot in self._with_prefix:
            lib.llama_memory_seq_rm(self._memory, slot, n_shared, -1)
        else:
            lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
            if n_shared:
                lib.llama_memory_seq_cp(self._memory, 0, slot, -1, -1)
                self._with_prefix.add(slot)
        return _Row(place, slot, prompt[n_shared:], n_shared)

    def _step(self, running: list[_Row]) -> list[_Row]:
        """Compute a batch, what decodes first; returns the rows that got a token."""
        entries: list[tuple[int, int, int, bool]] = []
        sampled: list[tuple[_Row, int]] = []
        for row in sorted(running, key=lambda row: len(row.pending)):
            part = row.pending[: _BATCH - len(entries)]
            last = len(part) == len(row.pending)
            entries += [
                (token, row.position + i, row.slot, last and i == len(part) - 1)
                for i, token in enumerate(part)
            ]
            row.pending, row.position = row.pending[len(part) :], row.position + len(part)
            if part and last:
                sampled.append((row, len(entries) - 1))
        self._decode(entries)
        for row, at in sampled:
            logits = lib.llama_get_logits_ith(self._context, at)
            token = int(np.ctypeslib.as_array(logits, (self._vocab,)).argmax())
            row.output.append(token)
            row.pending = [token]
        return [row for row, _ in sampled]

    def _decode(self, entries: list[tuple[int, int, int, bool]]) -> None:
        """Compute (token, position, sequence, whether its logits are wanted)."""
        batch = self._batch
        batch.n_tokens = len(entries)
        for i, (token, position, sequence, wanted) in enumerate(entries):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        code = lib.llama_decode(self._context, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code} for {len(entries)} tokens")


@lib.llama_log_callback
def _silent(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    pass


def _load_checkpoint(folder: str) -> Any:
    with tempfile.TemporaryDirectory(prefix="gguf-") as scratch:
        path = Path(scratch) / "model.gguf"
        write_gguf(Path(folder), path)
        # Not mapped: the file is gone once it is read.
        return _load_file(str(path), lib.LLAMA_LOAD_MODE_NONE)


def _load_file(path: str, mode: int = lib.LLAMA_LOAD_MODE_AUTO) -> Any:
    params = lib.llama_model_default_params()
    params.load_mode = mode
    return lib.llama_model_load_from_file(path.encode(), params)


def write_gguf(folder: Path, path: Path) -> None:
    """Write a Qwen 3 checkpoint's weights in float32, which loses nothing, as a GGUF file.

    Raises:
        ValueError: another architecture.
    """
    config = json.loads((folder / "config.json").read_text("utf-8"))
    writer = qwen3_writer(path, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    for file in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - it is no mapping
                tensor = weights.get_tensor(name).float().numpy()
                writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor)
    finish(writer)
