"""What a CUDA device has to say, in seven minutes: `make gpu`, or `python -m bench.gpu --out DIR`.

Every part is a process with a time limit of its own, so that one that fails, hangs or is killed
loses itself alone. As a part ends, its line is in DIR/parts.txt and what it has printed in
DIR/log.txt; DIR/benchmarks.json has all figures so far, each of which was in DIR/figures.jsonl as
soon as it was measured. `--tune` is a second run, of five minutes, which measures launch
configurations (DIR/tuning.json). `--rehearse` runs all of it where no device is. The exit code is 1
where a part did not pass.

This process imports the standard library alone, so that nothing can be wrong with it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from bench.gpu.plan import ROOT, Part, environment, parts

GRACE_S = 5.0  # the end of a limit: until then a part that was told to stop can say what it has
SLOWER = 20.0  # times as long a part may take in a rehearsal, on few cores
_VERSIONS = ("commit", "python", "flipfast", "torch", "triton", "transformers", "cuda")
_TAIL = 12  # lines of the log of a part that did not pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run every part."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets all files")
    parser.add_argument("--commit", default="", help="of this checkout, where it has no .git")
    parser.add_argument("--tune", action="store_true", help="the second run")
    parser.add_argument("--install", action="store_true", help="this checkout, into this Python")
    parser.add_argument("--rehearse", action="store_true", help="without a device")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and the part in hand ends as well
    out = options.out.resolve()
    todo = parts(out, tune=options.tune, install=options.install)
    return run(todo, out, commit=options.commit, rehearse=options.rehearse)


def run(todo: Sequence[Part], out: Path, *, commit: str = "", rehearse: bool = False) -> int:
    """Run parts one after the other; 1 where one did not pass."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("parts.txt", "log.txt", "figures.jsonl", "benchmarks.json", "tuning.json"):
        (out / name).unlink(missing_ok=True)
    variables, missed = environment(commit), []
    for part in todo:
        command, limit_s = part.command, part.limit_s
        if rehearse:
            command, limit_s = part.rehearsed, SLOWER * part.limit_s
        with (out / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"\n==== {part.name}\n")
            log.flush()
            begin = log.tell()
            started = time.monotonic()
            beside = () if rehearse else part.beside
            result = run_part(command, limit_s, log, variables, beside)
        line = f"{part.name}: {result}, {time.monotonic() - started:.1f} of {limit_s:.0f} s"
        said = _said(out / "log.txt", begin)
        line += f"; {said[-1]}" if said else ""
        if result != "passed":
            missed.append({"name": part.name, "reason": line})
        with (out / "parts.txt").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        told = [] if result == "passed" else said[-_TAIL:-1]
        print(*told, line, sep="\n", flush=True)
        merge(out, missed)
    return int(bool(missed))


def run_part(
    command: Sequence[str],
    limit_s: float,
    log: IO[str],
    variables: dict[str, str],
    beside: Sequence[Sequence[str]] = (),
) -> str:
    """Run a command, and others beside it in silence; shortly before its limit it is interrupted,
    at its limit all are killed.

    Returns:
        "passed", "failed (EXIT CODE)" or "stopped".
    """
    end = time.monotonic() + limit_s - GRACE_S
    process = _start(command, log, variables)
    others = [_start(one, subprocess.DEVNULL, variables) for one in beside]
    try:
        code = process.wait(max(end - time.monotonic(), 0.0))
        with contextlib.suppress(subprocess.TimeoutExpired):
            for other in others:
                other.wait(max(end - time.monotonic(), 0.0))
        return f"failed ({code})" if code else "passed"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        return "stopped"
    finally:
        for one in (process, *others):
            with contextlib.suppress(ProcessLookupError):  # all of it has ended
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()


def _start(
    command: Sequence[str], output: IO[str] | int, variables: dict[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_hear_interrupts,
    )


def _hear_interrupts() -> None:
    """What a shell runs in the background ignores them, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _said(log: Path, begin: int) -> list[str]:
    """The lines of a log from a byte on, but for empty ones."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode("utf-8", "replace").splitlines()
    return [line.strip("= ") for line in lines if line.strip("= ")]


def merge(out: Path, missed: Sequence[dict[str, str]]) -> None:
    """Write benchmarks.json, as `bench.report` reads it, from the figures so far."""
    figures = out / "figures.jsonl"
    rows = []
    for line in figures.read_text("utf-8").splitlines() if figures.exists() else ():
        with contextlib.suppress(ValueError):  # the last line of a part that was killed
            rows.append(json.loads(line))
    facts = rows[0]["extra_info"] if rows else {}
    merged = {
        "device": facts.get("device", "unknown"),
        "date": facts.get("date", ""),
        "versions": {name: facts[name] for name in _VERSIONS if name in facts},
        "skipped": list(missed),
        "benchmarks": rows,
    }
    new = out / "benchmarks.json.new"
    new.write_text(json.dumps(merged, indent=1) + "\n", "utf-8")
    new.replace(out / "benchmarks.json")


if __name__ == "__main__":
    sys.exit(main())
