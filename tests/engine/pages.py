"""An engine around a make-believe model whose whole state is in the pages."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence as SequenceOf

import torch

from flipfast.engine.batch import BatchBuilder
from flipfast.engine.drafting import Drafting
from flipfast.engine.engine import Engine
from flipfast.engine.keep import Keep
from flipfast.engine.model_runner import StepResult
from flipfast.engine.prefix_cache import PrefixCache
from flipfast.engine.sampler import BAD_LOGITS
from flipfast.engine.sampling import SamplingParams
from flipfast.engine.scheduler import Scheduler
from flipfast.engine.sequence import Sequence
from flipfast.engine.step_plan import StepPlan
from flipfast.watchers.base import Watcher

VOCAB = 50
END = 1
BAD = 2  # a prompt with this token has no usable logits


def next_token(history: SequenceOf[int]) -> int:
    """The make-believe model: any token that was mixed up on the way changes it."""
    digest = hashlib.blake2b(repr(list(history)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % VOCAB


def next_score(history: SequenceOf[int], target: int) -> float:
    """The make-believe log-probability of a token behind others."""
    return math.nan if BAD in history else -1.0 - next_token([*history, target])


def expected_output(prompt: SequenceOf[int], max_new_tokens: int) -> tuple[list[int], str]:
    """What a sequence has to give, worked out without an engine."""
    history = list(prompt)
    if BAD in prompt:
        return [], "error"
    for _ in range(max_new_tokens):
        token = next_token(history)
        if token == END:
            return history[len(prompt) :], "stop"
        history.append(token)
    return history[len(prompt) :], "length"


class PageRunner:
    """Runs plans like ModelRunner, but its keys are the token ids themselves.

    Every output token is worked out from the history that is found in the sequence's pages.
    """

    device = torch.device("cpu")

    def __init__(self, n_pages: int, page_size: int, max_seqs: int) -> None:
        self.page_size = page_size
        self.slots = torch.full((n_pages * page_size,), -7)
        self.last_token = torch.zeros(max_seqs, dtype=torch.int64)
        self.batches = BatchBuilder(page_size, max_seqs)
        self.keep = Keep()
        self.fail_when: set[int] = set()  # prompt tokens at which a step raises
        self.error: BaseException = RuntimeError("made to fail")
        self.longest_step = 0

    def wait_for_caller(self) -> None:
        """There is no stream."""

    def run(self, plan: StepPlan) -> StepResult:
        pages = self.slots.view(-1, self.page_size)
        copied = [pages[source].clone() for source, _ in plan.copies]
        for (_, target), content in zip(plan.copies, copied, strict=True):
            pages[target] = content
        batch = self.batches.build(plan).to(self.device)
        if any(self.fail_when & set(chunk.sequence.prompt_ids) for chunk in plan.chunks):
            raise self.error
        self.longest_step = max(self.longest_step, len(batch.input_ids))
        self.keep.feed(batch, self.last_token)
        meta = batch.metadata
        assert len(set(meta.slot_mapping.tolist())) == len(meta.slot_mapping)
        assert int(meta.slot_mapping.min()) >= self.page_size  # never the null page
        self.slots[meta.slot_mapping] = batch.input_ids
        tokens: list[int] = []
        scored_rows: list[int] = []
        scores: list[tuple[list[int], int]] = []  # tokens up to a scored row, and its target
        row = 0
        for i, chunk in enumerate(plan.chunks):
            length = int(meta.seq_lens[i])
            pages = meta.block_tables[i].long()[torch.arange(length) // self.page_size]
            found = self.slots[pages * self.page_size + torch.arange(length) % self.page_size]
            history = found.tolist()
            row += chunk.n_rows
            assert int(meta.cu_seqlens_q[i + 1]) == row
            if chunk.samples:
                bad = BAD in chunk.sequence.prompt_ids
                ends = range(length - len(chunk.draft), length + 1)
                tokens += [BAD_LOGITS if bad else next_token(history[:end]) for end in ends]
            for end in range(length - chunk.n_scored, length):
                scored_rows.append(row - length + end)
                scores.append((history[: end + 1], int(batch.targets[len(scores)])))
        assert scored_rows == batch.head_rows.tolist()[len(batch.logit_rows) :]
        result = torch.tensor(tokens, dtype=torch.int64)
        self.keep.keep(result, batch, self.last_token)
        table = [[next_score(*case), next_token(case[0])] for case in scores]
        return StepResult(
            [chunk for chunk in plan.chunks if chunk.samples],
            result,
            None,
            [chunk for chunk in plan.chunks if chunk.n_scored],
            torch.tensor(table, dtype=torch.float64).T if table else None,
        )


class PagedEngine:
    """An engine with its parts at hand."""

    def __init__(
        self,
        *,
        n_pages: int = 200,
        page_size: int = 4,
        max_seqs: int = 8,
        max_tokens: int = 32,
        overlap: bool = False,
        prefix_cache: bool = True,
        drafting: bool = False,
    ) -> None:
        self.cache = PrefixCache(n_pages, page_size, enabled=prefix_cache)
        self.scheduler = Scheduler(self.cache, max_seqs=max_seqs, max_tokens=max_tokens)
        self.runner = PageRunner(n_pages, page_size, max_seqs)
        self.engine = Engine(
            self.runner,  # type: ignore[arg-type]
            self.scheduler,
            end_ids=frozenset({END}),
            overlap=overlap,
            drafting=Drafting(overlap=overlap) if drafting else None,
        )

    def check_books(self) -> None:
        self.cache.pool.check(self.cache.kept_pages())

    def check_empty(self) -> None:
        """No sequence holds a page any more, and none is lost."""
        self.check_books()
        assert self.scheduler.idle
        assert self.cache.pool.n_held == 0
        assert sorted(self.scheduler._slots) == list(range(self.scheduler.max_seqs))


def sequence(
    prompt: SequenceOf[int], max_new_tokens: int = 8, watcher: Watcher | None = None
) -> Sequence:
    return Sequence(list(prompt), SamplingParams(max_new_tokens=max_new_tokens), watcher=watcher)


def random_prompts(rng: random.Random, n: int, longest: int) -> list[list[int]]:
    """Prompts of which many share a start of some length."""
    stems = [[rng.randrange(3, VOCAB) for _ in range(longest)] for _ in range(3)]
    prompts = []
    for _ in range(n):
        stem = rng.choice(stems)[: rng.randrange(longest)]
        tail = [rng.randrange(3, VOCAB) for _ in range(rng.randrange(1, 12))]
        prompts.append((stem + tail)[:longest])
    return prompts
