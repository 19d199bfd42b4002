"""Small random models of every family, and a driver that runs a decoder through pages by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from flipfast.engine.attention import AttentionMetadata, AttentionShape
from flipfast.engine.attention.reference import Backend
from flipfast.engine.models.checkpoint import Checkpoint, read_model
from flipfast.engine.models.decoder import Decoder
from flipfast.engine.models.spec import DecoderSpec
from flipfast.engine.ops.torch_ops import TorchOps

CPU = torch.device("cpu")
VOCAB_SIZE = 384
MAX_TOKENS = 704

SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,  # not hidden_size / num_attention_heads
    "max_position_embeddings": 1024,
    # Wide weights: the default leaves a random model repeating one token.
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


class Paged:
    """A decoder, its caches, and sequences whose pages are scattered over them."""

    def __init__(self, decoder: Decoder, n_seqs: int) -> None:
        self.decoder = decoder
        page = decoder.attention.page_size
        width = -(-decoder.spec.max_positions // page)
        order = torch.randperm(n_seqs * width, generator=torch.Generator().manual_seed(0)) + 1
        self.tables = order.view(n_seqs, width).int()
        n_pages = n_seqs * width + 1
        self.caches = [decoder.attention.allocate(n_pages) for _ in decoder.spec.layers]
        for pages in (pages for cache in self.caches for pages in cache):
            pages.fill_(float("nan"))  # what was never written must not be read
        self.lengths = [0] * n_seqs

    def step(self, parts: list[tuple[int, list[int]]], *, all_rows: bool = False) -> torch.Tensor:
        """Append tokens to sequences; logits of the last token of each part, or of all tokens."""
        return self.decoder.logits(self.forward(parts, all_rows=all_rows))

    def forward(
        self, parts: list[tuple[int, list[int]]], *, all_rows: bool = False
    ) -> torch.Tensor:
        """As `step`, but what the head is given instead of logits."""
        ids, positions, slots, starts = [], [], [], [0]
        page = self.decoder.attention.page_size
        for seq, tokens in parts:
            first, table = self.lengths[seq], self.tables[seq].tolist()
            own = range(first, first + len(tokens))
            ids += tokens
            positions += own
            slots += [table[position // page] * page + position % page for position in own]
            starts.append(len(ids))
            self.lengths[seq] += len(tokens)
        seqs = [seq for seq, _ in parts]
        lengths = [self.lengths[seq] for seq in seqs]
        metadata = AttentionMetadata(
            cu_seqlens_q=torch.tensor(starts, dtype=torch.int32),
            seq_lens=torch.tensor(lengths, dtype=torch.int32),
            block_tables=self.tables[seqs],
            slot_mapping=torch.tensor(slots),
            max_seqlen_q=max(len(tokens) for _, tokens in parts),
            max_seq_len=max(lengths),
        )
        rows = list(range(len(ids))) if all_rows else [start - 1 for start in starts[1:]]
        return self.decoder.forward(
            torch.tensor(ids),
            torch.tensor(positions),
            self.caches,
            metadata,
            torch.tensor(rows),
        )

    def greedy(self, prompts: list[list[int]], chunk: int, n_new: int) -> list[list[int]]:
        """Continue all prompts at once: at most `chunk` prompt tokens a sequence and step."""
        left = [list(prompt) for prompt in prompts]
        new: list[list[int]] = [[] for _ in prompts]
        while any(len(tokens) < n_new for tokens in new):
            parts = []
            for seq, tokens in enumerate(new):
                if left[seq]:
                    parts.append((seq, left[seq][:chunk]))
                    left[seq] = left[seq][chunk:]
                elif len(tokens) < n_new:
                    parts.append((seq, tokens[-1:]))
            chosen = self.step(parts).argmax(-1).tolist()
            for (seq, _), token in zip(parts, chosen, strict=True):
                if not left[seq]:
                    new[seq].append(token)
        return new


def build_decoder(
    spec: DecoderSpec,
    checkpoint: Checkpoint,
    dtype: torch.dtype = torch.float32,
    max_logit_rows: int = MAX_TOKENS,
) -> Decoder:
    shape = AttentionShape(spec.n_heads, spec.n_kv_heads, spec.head_dim, dtype, CPU)
    return Decoder(
        spec,
        TorchOps(CPU, dtype),
        Backend(shape),
        max_tokens=MAX_TOKENS,
        max_logit_rows=max_logit_rows,
        source_dtype=checkpoint.dtype,
    )


def load_decoder(
    folder: Path, dtype: torch.dtype = torch.float32, max_logit_rows: int = MAX_TOKENS
) -> Decoder:
    spec, checkpoint = read_model(str(folder))
    decoder = build_decoder(spec, checkpoint, dtype, max_logit_rows)
    decoder.load(checkpoint.tensors(), checkpoint.source)
    return decoder


def random_model(config: Any) -> Any:
    """A model whose norms and biases are random, too: fresh ones would hide a mix-up."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        for name, weight in model.named_parameters():
            if "norm" in name:
                torch.nn.init.uniform_(weight, 0.5, 1.5)
            if name.endswith("bias"):
                torch.nn.init.normal_(weight)
    return model
