"""The tables of docs/quality.md, from what `python -m bench.quality` keeps."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any


def report(folder: Path, parts: Iterable[str]) -> str:
    """Make Markdown of the JSON in a folder; parts that are missing are left out.

    Args:
        folder: with a file PART.json or, where a command prints JSON, PART.txt for each part.
        parts: names such as "eval-small"; those with the same first word share a table.
    """
    found: dict[str, dict[str, Any]] = {}
    for part in parts:
        kind, _, of = part.partition("-")
        content = _content(folder / part) if kind in _TABLES else None
        if content is not None:
            found.setdefault(kind, {})[of] = content
    tables = ["\n".join([f"## {kind}", "", *_TABLES[kind](kept)]) for kind, kept in found.items()]
    return "\n\n".join(tables) + "\n"


def _content(stem: Path) -> Any:
    for suffix in (".json", ".txt"):
        try:
            return json.loads(Path(f"{stem}{suffix}").read_text("utf-8"))
        except (OSError, ValueError):
            continue
    return None


def _real(found: dict[str, Any]) -> Iterator[str]:
    rows = {model: kept["groups"]["reward"] for model, kept in found.items()}
    for model, kept in found.items():
        rows[f"first 15 words, as {model}"] = kept["groups"]["first_15_words"]
        rows[f"any response, as {model}"] = kept["groups"].get("any_response", {})
    columns = ["matched_f1", "shuffled_f1", "auc", "best_of_8", "win_rate"]
    yield from _head(["", *columns, "statuses"])
    for name, row in rows.items():
        if row:
            statuses = found[name]["groups"]["statuses"] if name in found else {}
            shown = ", ".join(f"{n} {status}" for status, n in statuses.items())
            yield _line([name, *(f"{row[c]:.3f}" if c in row else "" for c in columns), shown])


def _accuracy(found: dict[str, Any]) -> Iterator[str]:
    """A table per subset and model, and one of the means."""
    yield from _head(["model, subset", "rater", "strict", "tie-split", "ties", "no score", "why"])
    for model, kept in found.items():
        subsets = kept["raters"][0]["subsets"]
        for subset in [*(["mean"] if len(subsets) > 1 else []), *subsets]:
            for rater in kept["raters"]:
                of = rater["mean"] if subset == "mean" else rater["subsets"][subset]
                yield _line(
                    [
                        f"{model}, {subset}",
                        rater["name"],
                        _interval(of["strict"]),
                        _interval(of["split"]),
                        f"{100 * of['tie_rate']:.1f}",
                        f"{100 * of['failure_rate']:.1f}",
                        _why(rater) if subset == "mean" else "",
                    ]
                )


def _interval(figure: dict[str, Any]) -> str:
    text = f"{100 * figure['value']:.1f}"
    if figure["over_items"] is None:
        return text
    low, high = figure["over_items"]
    return f"{text} ({100 * low:.1f}-{100 * high:.1f})"


def _why(rater: dict[str, Any]) -> str:
    counted = Counter(
        status
        for run in rater["runs"]
        for statuses in run["statuses"]
        for status in (status.removesuffix("+response_cut") for status in statuses)
        if status != "ok"
    )
    return ", ".join(f"{n} {status}" for status, n in counted.most_common())


def _drafts(found: dict[str, Any]) -> Iterator[str]:
    columns = ["passes", "output_tokens", "drafted", "accepted", "seconds"]
    yield from _head(["", *columns])
    for model, kept in found.items():
        for name in ("with", "without"):
            yield _line([f"{model}, {name} drafts", *(str(kept[name][c]) for c in columns)])


def _head(cells: Sequence[str]) -> Iterator[str]:
    yield _line(cells)
    yield _line(["---"] * len(cells))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


_TABLES: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "real": _real,
    "eval": _accuracy,
    "pairs": _accuracy,
    "written": _accuracy,
    "metrics": _accuracy,
    "drafts": _drafts,
}
