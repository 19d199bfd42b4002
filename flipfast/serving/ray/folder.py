"""Scores a folder of rows with Ray Data, in parts so that a run can be resumed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from flipfast.config import FlipConfig
from flipfast.errors import ConfigError, FlipfastError, InputError
from flipfast.reward import FlipReward
from flipfast.rows import RESERVED, carried, encode, score_rows, scored_fields
from flipfast.serving.ray.actor import ActorShare
from flipfast.serving.ray.parts import Part, cut, find_files, write_whole

_MANIFEST = "manifest.json"
_MAX_TRIES = 3  # per part: give up once this many actors have died with it
# Options that change a run's duration but not its output.
_FREE_OPTIONS = ("batch_size", "cache_rewards", "drafting", "memory", "progress")


@dataclass(frozen=True)
class PartReport:
    """The result of scoring a part.

    Attributes:
        source: the input file.
        out: the file with the scores.
        statuses: number of rows with each status.
        errors: row numbers and errors of malformed rows.
    """

    source: str
    out: str
    statuses: dict[str, int] = field(default_factory=dict)
    errors: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class FolderReport:
    """The result of a run.

    Attributes:
        n_parts: number of parts of the input.
        n_kept: number of parts finished by an earlier run.
        statuses: number of rows with each status in the other parts.
    """

    n_parts: int
    n_kept: int
    statuses: Counter[str]


class PartScorer:
    """Holds a reward in a Ray Data actor and scores the parts of a batch."""

    def __init__(
        self, build: Callable[[FlipConfig], FlipReward], config: FlipConfig, share: ActorShare
    ) -> None:
        share.set_threads()
        self._reward = build(config)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        reports = [self._score(Part(**json.loads(part))) for part in batch["part"]]
        return {"report": [json.dumps(asdict(report)) for report in reports]}

    def _score(self, part: Part) -> PartReport:
        report = PartReport(part.source, part.out)
        path = Path(part.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        tries = path.with_name(f".{path.name}.tries")  # grows by one byte per try
        if tries.exists() and tries.stat().st_size >= _MAX_TRIES:
            return report
        with tries.open("ab") as file:
            file.write(b".")
        read = part.rows(self._reward.config)
        rows = [replace(row, fields=carried(row.fields, RESERVED)) for row in read]
        scored = zip(rows, score_rows(self._reward, rows), strict=True)
        lines = [scored_fields(row, scores) for row, scores in scored]
        write_whole(path, "".join(encode(line)[0] + "\n" for line in lines))
        tries.unlink(missing_ok=True)
        report.statuses.update(_count(lines))
        report.errors.extend((row.line, row.error) for row in rows if row.error is not None)
        return report


def score_folder(
    source: str,
    out: str,
    config: FlipConfig | None = None,
    *,
    n_actors: int | None = None,
    share: ActorShare | None = None,
    rows_a_part: int = 1000,
    overwrite: bool = False,
    on_part: Callable[[PartReport, int], None] | None = None,
    build: Callable[[FlipConfig], FlipReward] = FlipReward,
) -> FolderReport:
    """Score JSONL and Parquet files on a Ray cluster; a second call resumes an interrupted one.

    The scores of NAME, in the format of `flipfast score`, go to OUT/NAME/part-000000.jsonl and so
    on, in row order. All machines must see both folders under the same paths. One actor scores
    all rows of a part; if it dies, another scores them again.

    Args:
        source: a file, or a folder with .jsonl and .parquet files at any depth.
        out: a folder.
        config: of the reward.
        n_actors: number of actors; None takes as many as the cluster has room for.
        share: each actor's share of the cluster.
        rows_a_part: rows per part: the most work that a restart loses, for each actor.
        overwrite: delete an earlier run's results in `out`.
        on_part: called with the report of each finished part and the total number of parts.
        build: creates the reward, in the actor.

    Raises:
        InputError: the input cannot be read, or differs from the one that `out` was begun with.
        ConfigError: the options differ from those that `out` was begun with, or `out` holds other
            files.
        FlipfastError: some parts killed their actors every time; all others are done.
    """
    config, share, folder = config or FlipConfig(), share or ActorShare(), Path(out)
    parts = _begin(find_files(source), folder, config, rows_a_part, overwrite=overwrite)
    missing = [part for part in parts if not Path(part.out).exists()]
    statuses: Counter[str] = Counter()
    if missing:
        for report in _run(missing, build, config, share, n_actors):
            statuses.update(report.statuses)
            if on_part is not None:
                on_part(report, len(parts))
    lost = [part for part in missing if not Path(part.out).exists()]
    if lost:
        raise FlipfastError(
            f"{len(lost)} of {len(parts)} parts are not done, as actors died with each of them "
            f"{_MAX_TRIES} times: first rows {lost[0].first} to "
            f"{lost[0].first + lost[0].n_rows - 1} of {lost[0].source}. Run again to retry them"
        )
    return FolderReport(len(parts), len(parts) - len(missing), statuses)


def _run(
    parts: list[Part],
    build: Callable[[FlipConfig], FlipReward],
    config: FlipConfig,
    share: ActorShare,
    n_actors: int | None,
) -> Iterator[PartReport]:
    """Score parts, each in its own Ray task, and yield their reports as they finish."""
    from ray import data

    if not ray.is_initialized():
        ray.init()
    context = data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    n = min(share.n_actors(n_actors), len(parts))
    with data.DataContext.current(context):
        items = [{"part": json.dumps(asdict(part))} for part in parts]
        dataset = data.from_items(items, override_num_blocks=len(items)).map_batches(
            PartScorer,
            fn_constructor_args=(build, config, share),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=n),
            **share.options(),
        )
    try:
        # Without prefetching no thread outlives this loop, so Ray releases the actors at its end.
        for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
            for report in batch["report"]:
                yield PartReport(**json.loads(report))
    except RayError as error:  # the message is a traceback; only its end matters
        last = str(error).strip().rpartition("\n")[2]
        raise FlipfastError(f"Ray gave up: {last}") from error


def _begin(
    files: dict[str, Path], out: Path, config: FlipConfig, rows_a_part: int, *, overwrite: bool
) -> list[Part]:
    """Cut the input into parts, and check that `out` was begun with the same one, or begin it."""
    parts: list[Part] = []
    digests = {}
    for name, file in files.items():
        digests[name], found = cut(name, file, out, rows_a_part)
        parts += found
    options = {key: value for key, value in asdict(config).items() if key not in _FREE_OPTIONS}
    manifest = {"options": options, "rows_a_part": rows_a_part, "inputs": digests}
    old = _read_manifest(out)
    if old is None and out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} holds files of something else: take an empty folder")
    _remove(out, ".part-*")  # unfinished files of actors that died
    if old is not None and not overwrite:
        _check_same(old, manifest, out)
        return parts
    _remove(out, "part-*.jsonl")
    write_whole(out / _MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return parts


def _remove(out: Path, pattern: str) -> None:
    for file in out.rglob(pattern):
        file.unlink()


def _read_manifest(out: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((out / _MANIFEST).read_text("utf-8"))
        return {"options": {}, "rows_a_part": 0, "inputs": {}, **found}
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {out / _MANIFEST}: {error}") from error


def _check_same(old: dict[str, Any], new: dict[str, Any], out: Path) -> None:
    cure = "take another folder, or --overwrite to begin anew"
    for name, value in {**new["options"], "rows_a_part": new["rows_a_part"]}.items():
        before = {**old["options"], "rows_a_part": old["rows_a_part"]}.get(name)
        if value != before:
            raise ConfigError(f"{out} was begun with {name}={before!r}, not {value!r}: {cure}")
    for name in sorted({*old["inputs"], *new["inputs"]}):
        if old["inputs"].get(name) != new["inputs"].get(name):
            raise InputError(f"{name} has changed, come or gone since {out} was begun: {cure}")


def _count(lines: list[dict[str, Any]]) -> Counter[str]:
    statuses: Counter[str] = Counter()
    for line in lines:
        status = line["status"]
        statuses.update([status] if isinstance(status, str) else status)
    return statuses
