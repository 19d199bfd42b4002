"""The client for asyncio code."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from flipfast import env
from flipfast.client._call import Call
from flipfast.client._protocol import encode
from flipfast.client._retry import Patience
from flipfast.client._transport import Transport
from flipfast.errors import ConfigError, InputError
from flipfast.scores import ScoreBatch, ScoredRow, check_lengths, failed_row, trainer_rewards
from flipfast.scoring.async_scoring import AsyncScorer


class AsyncFlipClient(AsyncScorer):
    """Scores on a flipfast server.

    Connections are reused. A request is retried only after a 503 answer or a failed connection
    (and a full queue with `wait_when_full`), with exponential back-off on top of the server's
    Retry-After; scoring twice is harmless. The client may be pickled, used after a fork, and used
    from several event loops, each with its own connections.

    Args:
        url: the server's address; None uses FLIPFAST_URL.
        api_key: its bearer key; None uses FLIPFAST_API_KEY, which may be unset.
        timeout: seconds that a call may take, all attempts together. Rows that are not done by
            then have the status "error".
        caller: default for whom rows are scored; the server lets callers take turns. "" lets the
            server go by the client's address.
        max_retries: attempts after the first, per request.
        wait_when_full: when the server's queue is full, wait within `timeout` instead of raising
            QueueFullError.

    Raises:
        ConfigError: there is no address, it does not start with http:// or https://, or `timeout`
            is not above 0.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 300.0,
        caller: str = "",
        max_retries: int = 8,
        wait_when_full: bool = False,
    ) -> None:
        url = url or env.server_url()
        if not url or not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"{url!r} is no server's address: give one like 'http://127.0.0.1:8000', or set "
                "FLIPFAST_URL"
            )
        if timeout <= 0:
            raise ConfigError(f"timeout must be above 0 seconds, not {timeout}")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.caller = caller
        self._patience = Patience(max_retries, wait_when_full)
        key = api_key or env.api_key()
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._transport = Transport(self.url, {"content-type": "application/json", **headers})

    async def score_row(
        self, instruction: str, response: str, context: str | None = None, *, caller: str = ""
    ) -> ScoredRow:
        """Score one response; see `AsyncScorer.score_row`.

        Raises:
            QueueFullError: the server's queue is full, and `wait_when_full` is off or the deadline
                too close.
            UnavailableError: the server was unreachable or answered 503 on every attempt.
            InputError: the server rejects the request's format: it runs another version.
            FlipfastError: the server answered with another error, given in the message.
        """
        item = {"instruction": instruction, "response": response, "context": context}
        return (await self._score([item], caller, None))[0]

    async def score_chat(self, prompt: Any, completion: Any, *, caller: str = "") -> ScoredRow:
        """Score one completion; see `AsyncScorer.score_chat`. Raises as `score_row` does."""
        item = {"prompt": prompt, "completion": completion}
        return (await self._score([item], caller, None))[0]

    async def score(
        self,
        instructions: Sequence[str],
        responses: Sequence[str],
        contexts: Sequence[str | None] | None = None,
        *,
        caller: str = "",
        timeout: float | None = None,
    ) -> ScoreBatch:
        """Score a batch of texts; see `FlipReward.score`.

        A large batch is split into several requests, a few of them sent at a time.

        Args:
            timeout: seconds; overrides the client's.

        Raises:
            InputError: the sequences differ in length, and as for `score_row`.
            QueueFullError, UnavailableError, FlipfastError: as for `score_row`.
        """
        started = time.perf_counter()
        given = [None] * len(instructions) if contexts is None else contexts
        check_lengths(instructions=instructions, responses=responses, contexts=given)
        keys = ("instruction", "response", "context")
        columns = zip(instructions, responses, given, strict=True)
        items = [dict(zip(keys, texts, strict=True)) for texts in columns]
        rows = await self._score(items, caller, timeout)
        return ScoreBatch.from_dicts(rows, time.perf_counter() - started)

    async def score_chats(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        caller: str = "",
        timeout: float | None = None,
    ) -> ScoreBatch:
        """Score a batch of completions in the trainers' format; see `score`."""
        started = time.perf_counter()
        check_lengths(prompts=prompts, completions=completions)
        pairs = zip(prompts, completions, strict=True)
        items = [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]
        rows = await self._score(items, caller, timeout)
        return ScoreBatch.from_dicts(rows, time.perf_counter() - started)

    async def flip_reward(
        self, prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any
    ) -> list[float | None]:
        """Score a batch for TRL's trainers; see `FlipReward.__call__`."""
        return trainer_rewards(await self.score_chats(prompts, completions))

    async def compute_score(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Score one response for verl's reward loop.

        Args:
            data_source: unused.
            solution_str: the response.
            ground_truth: the true instruction. If it is not a string, or is blank,
                `extra_info["prompt"]`, a string or messages, takes its place.
            extra_info: holds "prompt" if that is needed.
            kwargs: unused.

        Returns:
            Always "score" (0.0 if there is no reward: verl cannot represent a missing one),
            "inferred" and "status".
        """
        named = isinstance(ground_truth, str) and ground_truth.strip()
        prompt = ground_truth if named else (extra_info or {}).get("prompt")
        row = await self.score_chat(prompt, solution_str)
        score = 0.0 if row["reward"] is None else row["reward"]
        return {"score": score, "inferred": row["inferred"], "status": row["status"]}

    async def aclose(self) -> None:
        """Close the connections of the running event loop; they reopen when needed."""
        await self._transport.aclose()

    def __repr__(self) -> str:
        return f"AsyncFlipClient({self.url!r})"

    async def _score(
        self, items: Sequence[Mapping[str, Any]], caller: str, timeout: float | None
    ) -> list[ScoredRow]:
        """Return the rows of any number of items; an item that cannot be sent has an error row."""
        seconds = self.timeout if timeout is None else timeout
        name = caller or self.caller
        headers = {"x-flipfast-caller": quote(name)} if name else {}
        call = Call(self._transport, seconds, self._patience, headers)
        rows: dict[int, ScoredRow] = {}
        sent: dict[int, str] = {}
        for place, item in enumerate(items):
            try:
                sent[place] = encode(item)
            except InputError as error:
                rows[place] = failed_row(error)
        rows.update(zip(sent, await call.rows(list(sent.values())), strict=True))
        return [rows[place] for place in range(len(items))]
