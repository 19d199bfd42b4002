"""The decoder for all families: takes tokens of many sequences, returns logits or arg-maxes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from flipfast.engine.attention.base import AttentionBackend, AttentionMetadata, LayerCache
from flipfast.engine.models.layer import DecoderLayer, norm_slot
from flipfast.engine.models.spec import DecoderSpec, RopeSpec
from flipfast.engine.models.weights import HEAD, TABLE, VALUE_HEADS, Slot, fill, with_both
from flipfast.engine.models.workspace import Workspace
from flipfast.engine.ops.base import Linear, Ops, RopeTable, Table
from flipfast.engine.ops.blocks import Blocks, widened
from flipfast.errors import ModelLoadError


class Decoder:
    """A transformer decoder over a paged KV cache.

    Weights are uninitialized before `load`. A step allocates no memory: all activations live in a
    workspace, so the next call overwrites a result.

    Args:
        spec: of the model; its max_positions sets the size of the rope tables, so a smaller value
            saves memory if contexts are short.
        ops: the operations it runs; their device is the decoder's.
        attention: on the same device.
        max_tokens: maximum number of tokens of a step.
        max_logit_rows: maximum number of rows for which logits are computed at a time.
        source_dtype: of the checkpoint.
        kinds: of the checkpoint's quantised matrices, see `Blocks`, by the names of the tensors
            without prefix; None if there are none.
    """

    def __init__(
        self,
        spec: DecoderSpec,
        ops: Ops,
        attention: AttentionBackend,
        *,
        max_tokens: int,
        max_logit_rows: int,
        source_dtype: torch.dtype,
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        self.spec = spec
        self.ops = ops
        self.attention = attention
        self._source_dtype = source_dtype
        self._kinds = kinds or {}
        self.max_logit_rows = max_logit_rows
        self.max_tokens = max_tokens
        self._shared = spec.tied  # whether head and embedding may be one tensor
        self._kept = False
        self.restore()

    def _build_weights(self) -> None:
        spec, ops = self.spec, self.ops
        self._ropes = {
            name: rope_table(rope, spec.max_positions, ops.device)
            for name, rope in spec.ropes.items()
        }
        self._layers = [
            DecoderLayer(spec, index, ops, self._source_dtype, self._ropes, self._kinds)
            for index in range(len(spec.layers))
        ]
        self._norm = torch.empty(spec.hidden_size, dtype=torch.float32, device=ops.device)
        self._head = self._new_head()
        shared = self._head.table if self._shared else None
        if shared is None:
            kinds = (self._kinds.get(TABLE, ""),)
            shared = ops.table(spec.vocab_size, spec.hidden_size, kinds=kinds)
        self._embedding: Table = shared

    def _new_head(self) -> Linear:
        return self.ops.head(
            self.spec.vocab_size,
            self.spec.hidden_size,
            source_dtype=self._source_dtype,
            kinds=(self._kinds.get(HEAD, self._kinds.get(TABLE, "")),),
        )

    def _untie(self, source: str) -> None:
        """Give the head memory of its own; recorded steps go on with the embedding's."""
        self._shared = False
        if self._embedding is self._head.table:
            try:
                self._head = self._new_head()
            except torch.OutOfMemoryError as error:
                raise ModelLoadError(
                    f"{source} has a head that is not its embedding, for which "
                    f"{self.ops.device} has no memory left ({error}): load it as a model of its own"
                ) from error

    def load(self, tensors: Iterable[tuple[str, torch.Tensor | Blocks]], source: str) -> None:
        """Load weights in place, for the first time or to replace earlier ones.

        Args:
            tensors: all tensors of the model, by their names in published checkpoints, with or
                without the prefixes "model." and "language_model."; any float dtype, or in blocks.
                Of a tied model's head and embedding one is enough, and a head that differs counts.
            source: name of the checkpoint in error messages, such as the path of its file.

        Raises:
            ModelLoadError: a tensor is missing, unknown or misshapen, or is not finite and to be
                quantised; the weights are then a mix of old and new.
        """
        if self.spec.tied:
            tensors = with_both(tensors, lambda: self._untie(source))
        fill(self._slots(), tensors, source, ignored=self.spec.foreign + VALUE_HEADS)

    def _slots(self) -> dict[str, Slot]:
        spec, embedding = self.spec, self._embedding

        def put_embedding(tensor: torch.Tensor | Blocks) -> None:
            if isinstance(embedding, Linear):
                embedding.load(tensor, 0)
            else:
                embedding.copy_(widened(tensor))

        def put_head(tensor: torch.Tensor | Blocks) -> None:
            if self._head.table is not embedding:
                self._head.load(tensor, 0)

        shape = (spec.vocab_size, spec.hidden_size)
        slots = {TABLE: Slot(shape, "vocab_size, hidden_size", put_embedding)}
        for layer in self._layers:
            slots.update(layer.slots())
        slots.update([norm_slot("norm.weight", self._norm, spec.norm_offset)])
        slots[HEAD] = Slot(shape, "vocab_size, hidden_size", put_head)
        return slots

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        caches: Sequence[LayerCache],
        metadata: AttentionMetadata,
        logit_rows: torch.Tensor,
    ) -> torch.Tensor:
        """Run the layers for one step and write its keys and values to the caches.

        Args:
            input_ids, positions: (n,) int64, sequence after sequence as in metadata; n is at most
                max_tokens.
            caches: one entry per layer, from the attention backend's `allocate`.
            metadata: the layout of the tokens.
            logit_rows: (m,) int64, rows of the step that the LM head will run on.

        Returns:
            (m, hidden_size), normalized for the LM head, valid until the next call.
        """
        spec, ops = self.spec, self.ops
        step = self._workspace.step(positions, metadata)
        every = self._workspace.rows(len(input_ids))
        ops.embed(input_ids, self._embedding, spec.embed_scale, step.residual)
        pending: torch.Tensor | None = None
        for layer, cache in zip(self._layers[:-1], caches[:-1], strict=True):
            layer.attend(step, pending, self.attention, cache)
            pending = layer.finish(every)
        self._layers[-1].attend(step, pending, self.attention, caches[-1])
        # After the last attention, only rows whose logits are wanted matter.
        rows = self._workspace.chosen_rows(logit_rows)
        if not len(logit_rows):
            return rows.hidden
        pending = self._layers[-1].finish(rows)
        return ops.add_rms_norm(pending, rows.residual, self._norm, spec.norm_eps, pending)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits, (m, vocab_size) float32, valid until the next call.

        Args:
            hidden: (m, hidden_size), rows of `forward`'s result, at most max_logit_rows.
        """
        raw, logits = self._workspace.logits(len(hidden))
        if not len(hidden):
            return logits
        self._head(hidden, raw)
        if logits.dtype != raw.dtype:
            logits.copy_(raw)
        cap = self.spec.logit_softcap
        return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)

    def best(self, hidden: torch.Tensor) -> torch.Tensor:
        """The arg-max of each row's logits, (m,) int64; -1 where the maximum is not finite.

        Args:
            hidden: (m, hidden_size), from `forward`.
        """
        parts = [self._best(part) for part in hidden.split(self.max_logit_rows)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def score(
        self, hidden: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The log-probability of a target after each row, and the likeliest token.

        Args:
            hidden: (m, hidden_size), from `forward`.
            targets: (m,) int64, in [0, vocab_size).

        Returns:
            Natural log-probabilities of the targets, (m,) float32, and the arg-max of each row's
            logits, (m,) int64; NaN and -1 where logits are not finite.
        """
        n = self.max_logit_rows
        parts = [self._score(*part) for part in zip(hidden.split(n), targets.split(n), strict=True)]
        log_probs, best = zip(*parts, strict=True)
        return torch.cat(log_probs), torch.cat(best)

    def _score(
        self, hidden: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        fused = self.ops.fused_log_prob(self._head, hidden, targets, self.spec.logit_softcap)
        if fused is not None:
            return fused
        logits = self.logits(hidden)
        best = self.ops.argmax(logits)
        return self.ops.log_prob(logits, best, targets), best

    def _best(self, hidden: torch.Tensor) -> torch.Tensor:
        fused = self.ops.fused_argmax(self._head, hidden, self.spec.logit_softcap)
        return self.ops.argmax(self.logits(hidden)) if fused is None else fused

    def offload(self, keep: bool) -> None:
        """Free the device's memory; `restore` must be called before anything else.

        Args:
            keep: True moves the weights to pinned host memory if the device is a GPU, and leaves
                them in place on the CPU; False drops them.
        """
        del self._workspace
        self._kept = keep
        if not keep:
            del self._layers, self._head, self._embedding, self._norm, self._ropes
        elif self.ops.device.type != "cpu":
            for tensor in self._tensors():
                tensor.data = tensor.data.cpu().pin_memory()

    def restore(self) -> None:
        """Allocate the device's memory again; dropped weights must be loaded afterwards."""
        if self._kept:
            for tensor in self._tensors():
                tensor.data = tensor.data.to(self.ops.device)
        else:
            self._build_weights()
        self._workspace = Workspace(self.spec, self.ops, self.max_tokens, self.max_logit_rows)

    def weight_bytes(self) -> int:
        """Memory of the weights in bytes, including padding."""
        packed = [part for part in self._linears() if not part.tensors()]
        return sum(part.nbytes for part in packed) + sum(part.nbytes for part in self._tensors())

    def _linears(self) -> list[Linear]:
        """Every product once, with a table that is one."""
        found = [*(part for layer in self._layers for part in layer.linears()), self._head]
        if isinstance(self._embedding, Linear) and self._embedding is not self._head:
            found.append(self._embedding)
        return found

    def _tensors(self) -> list[torch.Tensor]:
        """Every weight tensor once, except those inside packed products."""
        tensors = [self._norm]
        if isinstance(self._embedding, torch.Tensor):
            tensors.append(self._embedding)
        tensors += [norm for layer in self._layers for norm in layer.norms.values()]
        tensors += [part for rope in self._ropes.values() for part in (rope.cos, rope.sin)]
        tensors += [tensor for part in self._linears() for tensor in part.tensors()]
        return list({id(tensor): tensor for tensor in tensors}.values())


def rope_table(rope: RopeSpec, n_positions: int, device: torch.device) -> RopeTable:
    """Cosines and sines of positions 0 to n_positions (exclusive), on the device."""
    frequencies = torch.tensor(rope.inv_freq, dtype=torch.float32)
    angles = torch.arange(n_positions, dtype=torch.float32)[:, None] * frequencies
    cos, sin = (part.mul_(rope.attention_factor) for part in (angles.cos(), angles.sin()))
    return RopeTable(cos.to(device), sin.to(device))
