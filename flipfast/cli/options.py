"""Options of the commands."""

from __future__ import annotations

import argparse
from typing import Any


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of FlipConfig; those not given keep FlipConfig's defaults."""
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
    option(
        "copy-guard",
        "report, mask or discount what a response copies from its instruction; default: off",
        choices=("off", "report", "mask", "discount"),
    )
    option("min-response-words", "a response with fewer is not inverted; default 0", type=int)
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


def add_out_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the output options of commands that write one line for each line they read."""
    parser.add_argument("--out", default="-", help=f"{what}; - (default) for standard output")
    parser.add_argument(
        "--resume", action="store_true", help="go on where an interrupted run left OUT"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def add_agree_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `flipfast agree`."""
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


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `flipfast serve`, besides the model's."""
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


def add_tune_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `flipfast tune`."""
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


def add_bench_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `flipfast bench`."""
    parser.add_argument("--quick", action="store_true", help="small sizes: three minutes at most")
    parser.add_argument("--gpu", action="store_true", help="only what needs a CUDA device")
    parser.add_argument("--only", nargs="+", default=(), metavar="SUITE", help="only these suites")
    parser.add_argument("--groups", metavar="FILE.jsonl", help="rows of the workloads")
    parser.add_argument("--report", action="store_true", help="write report.md with pictures, too")
    parser.add_argument(
        "--from", dest="run", metavar="RUN.json", help="write the report of this run"
    )
    parser.add_argument("--out", metavar="FOLDER", help="default: bench/results/<device>")
