"""A scorer that does what its texts say, for tests of what stands before it."""

import asyncio

from flipfast.errors import InputError, QueueFullError, UnavailableError
from flipfast.prompts.conversation import chat_texts
from flipfast.scores import failed_row
from flipfast.serving.scorer import Completion, EngineStatus, ServedScorer

COUNTERS = {"steps": 7, "sampling_passes": 21, "drafted_tokens": 10, "accepted_tokens": 6}
COUNTERS |= {"prompt_tokens": 100, "prefix_tokens": 80, "pages": 12, "rewards": 5}
_ERRORS = {
    "full": lambda: QueueFullError("the queue is full", 2.4),
    "crash": lambda: UnavailableError("the engine has crashed", 3),
    "bug": lambda: KeyError("a secret of the prompt"),
}


class FakeScorer(ServedScorer):
    """Rewards a response by the share of the instruction's words that it has.

    A response "full", "crash", "bug" or "nan" gives what it says, an error after as many turns of
    the event loop as the context is long; one that begins with "wait" is not done before `go` is
    set.
    """

    def __init__(self):
        self.go = asyncio.Event()
        self.state = "ready"
        self.queued = 0
        self.calls = []
        self.cancelled = 0
        self.waiting = 0
        self.closed = False
        self.padding = ""

    async def score_row(self, instruction, response, context=None, *, caller=""):
        self.calls.append((instruction, response, context, caller))
        if not isinstance(instruction, str) or not isinstance(response, str):
            return failed_row(f"the response must be a string, got {response!r:.80}")
        if response in _ERRORS:
            for _ in context or "":
                await asyncio.sleep(0)
            raise _ERRORS[response]()
        await self._wait(response)
        words = instruction.split()
        share = sum(word in response.split() for word in words) / max(1, len(words))
        return {
            "reward": float("nan") if response == "nan" else share,
            "precision": share,
            "recall": share,
            "inferred": response[:50] + self.padding,
            "status": "ok",
            "n_prompt_tokens": len(response),
            "n_output_tokens": 3,
            "error": None,
        }

    async def score_chat(self, prompt, completion, *, caller=""):
        try:
            texts = chat_texts(prompt, completion, "instruction")
        except InputError as error:
            return failed_row(error)
        return await self.score_row(*texts, caller=caller)

    async def complete(self, messages, sampling, *, seed=0, caller=""):
        self.calls.append((messages, sampling, seed, caller))
        await self._wait(messages[-1]["content"])
        return Completion(messages[-1]["content"].upper(), "stop", 5, 3)

    async def _wait(self, text):
        if not text.startswith("wait"):
            return
        self.waiting += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1

    def status(self):
        return EngineStatus(self.state, "fake", self.queued, self.waiting, COUNTERS)

    async def sleep(self, *, drop_weights=False):
        self.state = "asleep, without weights" if drop_weights else "asleep"

    async def wake(self):
        self.state = "ready"

    async def update_weights(self, folder):
        self.calls.append(folder)

    async def close(self):
        self.closed = True
