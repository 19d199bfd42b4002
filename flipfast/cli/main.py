"""Parses the command line and runs one command; each command is a module of this package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from flipfast.cli import options, quality
from flipfast.errors import ConfigError, FlipfastError

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, 2 after an error (with one line on standard error), 130 if interrupted.
    """
    arguments = vars(_parser().parse_args(argv))
    command = arguments.pop("command")
    try:
        command(**arguments)
    except FlipfastError as error:
        print(f"flipfast: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("flipfast: interrupted; finished rows are kept", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of standard output is gone, as with `| head`
        sys.stderr.close()
        return 0
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="flipfast", description="The FLIP reward: infer the instruction, score")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    score = commands.add_parser("score", help="score a file of rows")
    score.add_argument(
        "input",
        metavar="IN",
        help="rows to score: .jsonl (also .gz, .zst), .json or .parquet; - for standard input; "
        "--ray: or a folder",
    )
    options.add_out_options(score, "scored rows")
    score.add_argument(
        "--ray",
        action="store_true",
        help="score files on a Ray cluster, into a folder OUT; always resumes",
    )
    score.add_argument("--actors", type=int, metavar="N", help="engines, with --ray")
    options.add_model_options(score)
    score.set_defaults(command=_score)
    demo = commands.add_parser("demo", help="score a few groups of responses and show them")
    demo.add_argument(
        "groups", nargs="?", metavar="GROUPS.jsonl", help="rows with instruction and responses"
    )
    options.add_model_options(demo)
    demo.set_defaults(command=_demo)
    agree = commands.add_parser("agree", help="compare the rewards of several configurations")
    options.add_agree_options(agree)
    options.add_model_options(agree)
    agree.set_defaults(command=_agree)
    quality.add_commands(commands)
    serve = commands.add_parser("serve", help="answer over HTTP")
    options.add_serve_options(serve)
    options.add_model_options(serve)
    serve.set_defaults(command=_serve)
    tune = commands.add_parser("tune", help="measure the GPU kernels' configurations")
    options.add_tune_options(tune)
    tune.set_defaults(command=_tune)
    profile = commands.add_parser("profile", help="show where the time of a run goes")
    profile.add_argument("--input", metavar="IN.jsonl", help="rows; default: the package's groups")
    profile.add_argument("--out", metavar="TRACE.json", help="write a trace for chrome://tracing")
    options.add_model_options(profile)
    profile.set_defaults(command=_profile)
    bench = commands.add_parser(
        "bench", help="run the benchmarks of a checkout and keep the figures"
    )
    options.add_bench_options(bench)
    bench.set_defaults(command=_bench)
    info = commands.add_parser("info", help="show versions, devices and optional parts")
    info.set_defaults(command=_info)
    return parser


def _score(**arguments: Any) -> None:
    from flipfast.cli.score import score_file

    source, out = arguments.pop("input"), arguments.pop("out")
    resume, overwrite = arguments.pop("resume"), arguments.pop("overwrite")
    on_ray, actors = arguments.pop("ray"), arguments.pop("actors")
    if on_ray:
        from flipfast.cli.score_ray import score_on_ray

        score_on_ray(source, out, overwrite=overwrite, actors=actors, options=arguments)
        return
    if actors is not None:
        raise ConfigError("--actors goes with --ray")
    score_file(source, out, resume=resume, overwrite=overwrite, options=arguments)


def _demo(**arguments: Any) -> None:
    from flipfast.cli.demo import show_demo

    show_demo(arguments.pop("groups"), options=arguments)


def _agree(**arguments: Any) -> None:
    from flipfast.cli.agree import show_agreement

    own = {name: arguments.pop(name) for name in ("base", "variants", "plot", "json_out")}
    show_agreement(arguments.pop("groups"), **own, options=arguments)


def _serve(**arguments: Any) -> None:
    from flipfast.cli.serve import run_server

    names = ("api_key", "admin", "max_queue", "max_body", "timeout", "log_texts")
    limits = {name: arguments.pop(name) for name in names if name in arguments}
    where = {name: arguments.pop(name) for name in ("host", "port", "workers")}
    run_server(**where, limits=limits, options=arguments)


def _tune(**arguments: Any) -> None:
    from flipfast.cli.tune import tune

    tune(**arguments)


def _profile(**arguments: Any) -> None:
    from flipfast.cli.profile import show_profile

    source, out = arguments.pop("input"), arguments.pop("out")
    show_profile(source, out, options=arguments)


def _bench(**arguments: Any) -> None:
    from flipfast.cli.bench import run_benchmarks

    run_benchmarks(**arguments)


def _info() -> None:
    from flipfast.cli.info import show_info

    show_info()
