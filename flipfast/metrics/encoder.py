"""Semantic similarity, by an encoder that the user chooses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flipfast.errors import ModelLoadError
from flipfast.metrics.base import Metric, Values

_BATCH = 32


def encoder_similarity(folder: str, device: str | None = None) -> Metric:
    """Make the metric: cosine of two texts' mean last hidden states, or 0.0 if either is empty.

    In [-1, 1]. The last bits of a value depend on the batch, as with ordinary matrix products.

    Args:
        folder: of an encoder that transformers can load, such as those of sentence-transformers
            with mean pooling; nothing is downloaded.
        device: where it runs; None for the CPU.

    Raises:
        ModelLoadError: the encoder cannot be loaded.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True).to(device or "cpu").eval()
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"cannot load the encoder {folder!r}: {error}") from error

    @torch.inference_mode()
    def embed(texts: list[str]) -> torch.Tensor:
        found = []
        for at in range(0, len(texts), _BATCH):
            inputs = tokenizer(
                texts[at : at + _BATCH], padding=True, truncation=True, return_tensors="pt"
            ).to(model.device)
            states = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            found.append((states * mask).sum(1) / mask.sum(1).clamp(min=1))
        return torch.nn.functional.normalize(torch.cat(found).double(), dim=-1)

    def score(predictions: Sequence[str], references: Sequence[str]) -> Values:
        texts = sorted({*predictions, *references}, key=lambda text: (len(text), text))
        if not texts:
            return np.zeros(0)
        rows = dict(zip(texts, embed(texts), strict=True))
        pairs = zip(predictions, references, strict=True)
        return np.array([float(rows[x] @ rows[y]) if x and y else 0.0 for x, y in pairs])

    return score
