"""Multiset overlap of token or word ids, and the F1 that follows from it."""

import torch


def overlap_f1_ref(
    prediction_ids: torch.Tensor,
    prediction_lens: torch.Tensor,
    reference_ids: torch.Tensor,
    reference_lens: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Count the ids that two padded rows share, each as often as both hold it, and score them.

    Sorts both rows: the k-th copy of an id in a prediction counts where the reference holds more
    than k copies of it. Time O(L log M) a row, memory linear. The scores are those of FLIP
    (arXiv 2602.13551) on ids in place of words.

    Args:
        prediction_ids: integer (N, L); entries from a row's length on are ignored.
        prediction_lens: integer (N,), each in [0, L].
        reference_ids: integer (N, M); entries from a row's length on are ignored.
        reference_lens: integer (N,), each in [0, M].

    Returns:
        counts: int32 (N,), the size of each multiset intersection.
        scores: float64 (N, 3), f1, precision, recall; all 0 where the count is 0.

    Raises:
        ValueError: a dtype is not an integer one, or shapes, lengths or devices do not fit.
    """
    _check(
        prediction_ids=prediction_ids,
        prediction_lens=prediction_lens,
        reference_ids=reference_ids,
        reference_lens=reference_lens,
    )
    predicted = _sorted_rows(prediction_ids, prediction_lens)
    referred = _sorted_rows(reference_ids, reference_lens)
    index = torch.arange(predicted.shape[1], device=predicted.device)
    copy = index - torch.searchsorted(predicted, predicted)
    copies = _count_in(referred, reference_lens, predicted)
    is_shared = (index < prediction_lens[:, None]) & (copy < copies)
    counts = is_shared.sum(dim=1, dtype=torch.int32)
    return counts, _scores(counts, prediction_lens, reference_lens)


def _sorted_rows(ids: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
    """Sort each row with its padding last; a real id as large as the padding is no matter."""
    is_padding = torch.arange(ids.shape[1], device=ids.device) >= lens[:, None]
    largest = torch.iinfo(torch.int64).max
    return ids.to(torch.int64).masked_fill(is_padding, largest).sort(dim=1).values


def _count_in(rows: torch.Tensor, lens: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """How often each id stands among the first `lens` entries of its sorted row."""
    begin = torch.searchsorted(rows, ids)
    end = torch.searchsorted(rows, ids, right=True)
    return end.minimum(lens[:, None]) - begin.minimum(lens[:, None])


def _scores(
    counts: torch.Tensor, prediction_lens: torch.Tensor, reference_lens: torch.Tensor
) -> torch.Tensor:
    same = counts.to(torch.float64)
    precision = same / prediction_lens.clamp(min=1)
    recall = same / reference_lens.clamp(min=1)
    f1 = torch.where(counts > 0, (2 * precision * recall) / (precision + recall), 0.0)
    return torch.stack([f1, precision, recall], dim=1)


def _check(**arguments: torch.Tensor) -> None:
    first = arguments["prediction_ids"]
    for name, tensor in arguments.items():
        if tensor.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"{name} is {tensor.dtype}: pass int32 or int64")
        if tensor.device != first.device:
            raise ValueError(f"{name} is on {tensor.device}, prediction_ids on {first.device}")
        n_dims = 2 if name.endswith("ids") else 1
        if tensor.dim() != n_dims or tensor.shape[0] != first.shape[0]:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}: expected {n_dims} dimensions, and the "
                f"{first.shape[0]} rows of prediction_ids"
            )
    for side in ("prediction", "reference"):
        lens, width = arguments[f"{side}_lens"], arguments[f"{side}_ids"].shape[1]
        if ((lens < 0) | (lens > width)).any():
            raise ValueError(f"{side}_lens {lens.tolist()} must lie in [0, {width}]")
