"""Runs requests: each distinct one only once, in this call or an earlier one."""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from flipfast.backends import Inversion, InversionRequest, Inverter, SamplingParams

if TYPE_CHECKING:
    from flipfast.scoring.device_scoring import DeviceScore, DeviceScorer

Result = TypeVar("Result")
_WHOLE = ("stop", "length")  # finish reasons of complete outputs


@dataclass(frozen=True)
class RunCounts:
    """Counters of a call's requests.

    Attributes:
        n_folded: requests that shared another one's run in this call.
        n_cached: requests, folded ones aside, with results cached by an earlier call.
        n_tokens: prompt and output tokens of the requests that were run.
    """

    n_folded: int
    n_cached: int
    n_tokens: int


@dataclass(frozen=True)
class Results(RunCounts):
    """The results of a call's requests.

    Attributes:
        inversions: one per request.
        scores: one per request; None if it must be scored from the text.
    """

    inversions: list[Inversion]
    scores: list[DeviceScore | None]


class RequestRunner:
    """Runs requests on an inverter, identical ones only once.

    A result depends only on the model, the sampling and the request, so a folded or cached one is
    the same as one that was run.

    Args:
        inverter: runs them.
        sampling: of all requests.
        scorer: of the inverter's outputs on their device, or None.
        cache_size: how many results to keep for later calls, evicting the least recently used.
            Results of other weights are dropped.
    """

    def __init__(
        self,
        inverter: Inverter,
        sampling: SamplingParams,
        scorer: DeviceScorer | None,
        cache_size: int,
    ) -> None:
        self._inverter = inverter
        self._sampling = sampling
        self._scorer = scorer
        self._cache = ResultCache[Inversion](cache_size)

    def run(
        self,
        requests: Sequence[InversionRequest],
        instructions: Sequence[str],
        on_progress: Callable[[int], None],
    ) -> Results:
        """Continue every prompt.

        Args:
            requests: any number.
            instructions: the true instruction of each, to score its output against.
            on_progress: called from time to time with the number of requests done so far.
        """
        keys = [_key(request) for request in requests]
        distinct = dict(zip(keys, requests, strict=True))
        version = self._inverter.weights_version
        found = self._cache.get(distinct, version)
        n_cached = len(found)
        fresh = {key: request for key, request in distinct.items() if key not in found}
        n_ready = len(requests) - len(fresh)
        if n_ready:
            on_progress(n_ready)
        new: list[Inversion] = []
        scores: list[DeviceScore | None] = [None] * len(requests)
        if fresh:
            wanted = [at for at, key in enumerate(keys) if key in fresh]
            places = {key: place for place, key in enumerate(fresh)}
            pairs = [(places[keys[at]], instructions[at]) for at in wanted]
            new, given = self._generate(
                list(fresh.values()), pairs, lambda n_done: on_progress(n_ready + n_done)
            )
            for at, score in zip(wanted, given, strict=True):
                scores[at] = score
        found.update(zip(fresh, new, strict=True))
        kept = {key: found[key] for key in distinct if found[key].finish_reason in _WHOLE}
        self._cache.put(kept, version)
        outputs = sum(len(inversion.output_ids) for inversion in new)
        return Results(
            inversions=[found[key] for key in keys],
            scores=scores,
            n_folded=len(requests) - len(distinct),
            n_cached=n_cached,
            n_tokens=outputs + sum(len(request.prompt_ids) for request in fresh.values()),
        )

    def start(
        self,
        requests: Sequence[InversionRequest],
        on_end: Callable[[list[Inversion]], None],
    ) -> Callable[[], None]:
        """Start prompts that the inverter's next steps will continue; see `Inverter.start`.

        Args:
            requests: distinct ones.
            on_end: called with their results, without texts, once all are done.
        """
        keys = [_key(request) for request in requests]
        version = self._inverter.weights_version
        found: dict[bytes, Inversion] = self._cache.get(keys, version)
        fresh = [key for key in keys if key not in found]

        def take(place: int, inversion: Inversion) -> None:
            found[fresh[place]] = inversion
            if inversion.finish_reason in _WHOLE:
                self._cache.put({fresh[place]: inversion}, version)
            if len(found) == len(keys):
                on_end([found[key] for key in keys])

        if not fresh:
            on_end([found[key] for key in keys])
            return lambda: None
        missing = [request for key, request in zip(keys, requests, strict=True) if key in fresh]
        return self._inverter.start(missing, self._sampling, take)

    def _generate(
        self,
        requests: list[InversionRequest],
        pairs: list[tuple[int, str]],
        on_progress: Callable[[int], None],
    ) -> tuple[list[Inversion], Sequence[DeviceScore | None]]:
        if self._scorer is not None:
            return self._scorer.run(requests, pairs, self._sampling, on_progress)
        inversions = self._inverter.generate(requests, self._sampling, on_progress)
        return inversions, [None] * len(pairs)


class ResultCache(Generic[Result]):
    """An LRU cache of results for one version of the weights, at most `size`; thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._version = 0
        self._kept: OrderedDict[bytes, Result] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, keys: Iterable[bytes], version: int) -> dict[bytes, Result]:
        """Return the results cached for these keys, which count as used."""
        with self._lock:
            if version != self._version:
                self._kept.clear()
                self._version = version
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
            return found

    def put(self, results: Mapping[bytes, Result], version: int) -> None:
        """Cache results, unless their version is not that of the last `get`."""
        with self._lock:
            if version != self._version:
                return
            self._kept.update(results)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)


def _key(request: InversionRequest) -> bytes:
    """Hash what a result depends on besides the model and the sampling, to 32 bytes."""
    content = array("q", request.prompt_ids).tobytes()
    seed = (request.seed % 2**64).to_bytes(8, "little")
    return hashlib.blake2b(content, digest_size=32, key=seed).digest()
