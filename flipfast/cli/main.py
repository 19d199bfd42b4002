"""Reads the command line and calls one command; each is a module of this package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from flipfast.errors import ConfigError, FlipfastError

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, 2 for wrong use (with one line on standard error), 130 when interrupted.
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
    except BrokenPipeError:  # the reader of standard output has gone, as with `| head`
        sys.stderr.close()
        return 0
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="flipfast", description="The FLIP reward: infer the instruction, score")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    score = commands.add_parser("score", help="score a JSONL file")
    score.add_argument(
        "input", metavar="IN.jsonl", help="rows to score; - for standard input; --ray: or a folder"
    )
    score.add_argument("--out", default="-", help="scored rows; - (default) for standard output")
    score.add_argument(
        "--resume", action="store_true", help="go on where an interrupted run left OUT"
    )
    score.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    score.add_argument(
        "--ray",
        action="store_true",
        help="score .jsonl and .parquet files on a Ray cluster, into a folder OUT; always resumes",
    )
    score.add_argument("--actors", type=int, metavar="N", help="engines, with --ray")
    _add_model_options(score)
    score.set_defaults(command=_score)
    demo = commands.add_parser("demo", help="score a few groups of responses and show them")
    demo.add_argument(
        "groups", nargs="?", metavar="GROUPS.jsonl", help="rows with instruction and responses"
    )
    _add_model_options(demo)
    demo.set_defaults(command=_demo)
    agree = commands.add_parser("agree", help="compare the rewards of several configurations")
    _add_agree_options(agree)
    _add_model_options(agree)
    agree.set_defaults(command=_agree)
    serve = commands.add_parser("serve", help="answer over HTTP")
    _add_serve_options(serve)
    _add_model_options(serve)
    serve.set_defaults(command=_serve)
    tune = commands.add_parser("tune", help="measure the GPU kernels' configurations")
    _add_tune_options(tune)
    tune.set_defaults(command=_tune)
    profile = commands.add_parser("profile", help="show where the time of a run goes")
    profile.add_argument("--input", metavar="IN.jsonl", help="rows; default: the package's groups")
    profile.add_argument("--out", metavar="TRACE.json", help="write a trace for chrome://tracing")
    _add_model_options(profile)
    profile.set_defaults(command=_profile)
    bench = commands.add_parser(
        "bench", help="run the benchmarks of a checkout and keep the figures"
    )
    _add_bench_options(bench)
    bench.set_defaults(command=_bench)
    info = commands.add_parser("info", help="show versions, devices and optional parts")
    info.set_defaults(command=_info)
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options of FlipConfig; what is not given keeps its default there."""
    from flipfast.prompts.templates import STYLES, TARGETS

    def option(name: str, help_text: str, **how: Any) -> None:
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=help_text, **how)

    option("model", "embedded (default), a local folder or a hub name")
    option("style", "prompt style; default: what the model was made for", choices=STYLES)
    option("target", "infer the instruction or the system prompt", choices=TARGETS)
    option("prompts-dir", "folder with the FLIP authors' prompt files")
    option("parser", "how outputs are read", choices=("robust", "reference"))
    option("json", "forced: the engine writes the object's literals", choices=("free", "forced"))
    option("on-failure", "reward where nothing could be inferred; default null", type=float)
    option("max-new-tokens", "longest output", type=int)
    option("max-response-tokens", "a longer response loses its middle", type=int)
    option("temperature", "0 (default) is greedy", type=float)
    option("top-p", "nucleus of the sampling", type=float)
    option("top-k", "sample from the likeliest tokens only", type=int)
    option("samples", "inversions a response, with a temperature", type=int)
    option("seed", "of the sampling", type=int)
    option(
        "scoring", "F1 with what is generated, or likelihood", choices=("generate", "likelihood")
    )
    option("metric", "word_f1 (default), f_beta:2, token_f1, rouge_l, bleu, char_f1, cjk_f1, ...")
    option("likelihood-baseline", "less the likelihood without the response", action="store_true")
    option("thinking", "leave the model's thinking on", action="store_true")
    option("device", "cpu, cuda, cuda:1")
    option("dtype", "of the model", choices=("float32", "bfloat16", "float16"))
    option("batch-size", "rows run together", type=int)
    option("backend", "native, transformers, vllm or a server's address; default: what suits")
    option("tokenizer", "folder or hub name, where a served model is called something else")
    option("attention", "the native engine's attention backend")
    option("memory", "of the native engine, besides weights: bytes, or a share up to 1", type=float)
    parser.add_argument(
        "--fast",
        dest="deterministic",
        action="store_false",
        default=argparse.SUPPRESS,
        help="let the bits of a reward depend on the batch, where that is faster",
    )
    parser.add_argument(
        "--no-early-stop",
        dest="early_stop",
        action="store_false",
        default=argparse.SUPPRESS,
        help="let outputs run on behind the instruction",
    )
    option("revision", "branch, tag or commit of a hub model")
    option("trust-remote-code", "run code that comes with the model", action="store_true")


def _add_agree_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "groups", nargs="?", metavar="GROUPS.jsonl", help="rows; default: the package's groups"
    )
    how: dict[str, Any] = {"metavar": "KEY=VALUE[,...]"}
    parser.add_argument("--base", default="", help="options of the first reward", **how)
    parser.add_argument(
        "--variant",
        action="append",
        required=True,
        dest="variants",
        help="options of a reward that is compared with it; once for each",
        **how,
    )
    parser.add_argument("--plot", metavar="FILE.png", help="draw the rewards against the first")
    parser.add_argument("--json-out", metavar="FILE.json", help="write figures and all rewards")


def _add_serve_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="engines: one a GPU, or on a CPU")

    def limit(name: str, help_text: str, **how: Any) -> None:
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=help_text, **how)

    limit("api-key", "what callers must bring as bearer token; default: $FLIPFAST_API_KEY")
    limit("admin", "have routes for sleep, wake and new weights", action="store_true")
    limit("max-queue", "rows that may wait; default 4096", type=int)
    limit("max-body", "bytes of a request; default 16 MiB", type=int)
    limit("timeout", "seconds that the rows of a request may take; default 600", type=float)
    limit("cache-rewards", "inversions kept for rows that come again; default 0", type=int)
    limit("log-texts", "write prompts and responses into the log", action="store_true")


def _add_tune_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="measure the shapes of this folder or hub name")
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=(),
        metavar="OUTxIN",
        help="measure these weights instead; default: those of Qwen 3",
    )
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--device", help="cuda, cuda:1")
    parser.add_argument("--quick", action="store_true", help="a minute and a half at most")
    parser.add_argument("--out", metavar="FILE", help="write here; default: the user's own file")
    parser.add_argument("--packaged", action="store_true", help="write into the package")


def _add_bench_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="small sizes: three minutes at most")
    parser.add_argument("--gpu", action="store_true", help="only what needs a CUDA device")
    parser.add_argument("--only", nargs="+", default=(), metavar="SUITE", help="only these suites")
    parser.add_argument("--groups", metavar="FILE.jsonl", help="rows of the workloads")
    parser.add_argument(
        "--report", action="store_true", help="write report.html and report.md, too"
    )
    parser.add_argument(
        "--from", dest="run", metavar="RUN.json", help="write the report of this run"
    )
    parser.add_argument("--out", metavar="FOLDER", help="default: bench/results/<device>")


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
