"""Output tokens on the device: stored by the step that samples them, fed to the next one."""

from __future__ import annotations

import torch

from flipfast.engine.batch import StepBatch


class Keep:
    """In plain torch, which cannot write to addresses.

    Attributes:
        writes_rows: whether sequences may have an output_row.
    """

    writes_rows = False

    def feed(self, batch: StepBatch, last_token: torch.Tensor) -> None:
        """Fill in those input ids of a batch that are last_token[slot]."""
        if batch.fed_slots is not None:
            fed = last_token[batch.fed_slots.clamp(min=0)]
            batch.input_ids.copy_(torch.where(batch.fed_slots < 0, batch.input_ids, fed))

    def keep(self, tokens: torch.Tensor, batch: StepBatch, last_token: torch.Tensor) -> None:
        """Store the tokens chosen after a batch's logit rows, (n_logits,) int64.

        The last output token of each sampling sequence goes to last_token[slot], a negative one as
        0, and all of them go as int32 to the sequence's address, if it has one. A sequence without
        logit rows changes nothing but, perhaps, its own slot.

        Raises:
            ValueError: the batch has addresses, which only `FusedKeep` can write to.
        """
        if batch.output_addresses is not None:
            raise ValueError("output rows on the device need the Triton kernels")
        if batch.cu_logits is not None:  # after a draft, the host supplies the next token
            tokens = tokens[(batch.cu_logits[1:] - 1).clamp(min=0)]
        # A sequence with bad logits ends here; token 0 only fills its row in a step in flight.
        last_token[batch.sample_slots] = tokens.clamp(min=0)


class FusedKeep(Keep):
    """As two Triton kernels, of which one also writes to addresses.

    Raises:
        ImportError: there is no Triton.
    """

    writes_rows = True

    def __init__(self) -> None:
        from flipfast_kernels import acceptance, feed

        self._feed, self._accept = feed.feed_tokens, acceptance.accept_tokens
        self._max_positions = acceptance.MAX_POSITIONS

    def feed(self, batch: StepBatch, last_token: torch.Tensor) -> None:
        if batch.fed_slots is not None:
            self._feed(batch.input_ids, batch.fed_slots, last_token, validate=False)

    def keep(self, tokens: torch.Tensor, batch: StepBatch, last_token: torch.Tensor) -> None:
        drafted = batch.cu_logits is not None
        self._accept(
            tokens,
            batch.input_ids[batch.logit_rows] if drafted else None,
            batch.cu_logits,
            max_positions=self._max_positions if drafted else 1,  # what it is compiled for
            slots=batch.sample_slots,
            last_token=last_token,
            output_addresses=batch.output_addresses,
            validate=False,
        )
