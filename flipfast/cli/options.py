"""Options of the commands."""

from __future__ import annotations

import argparse
from typing import Any


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of FlipConfig; those not given keep FlipConfig's defaults."""
    from flipfast.prompts.templates import STYLES, TARGETS

    def option(name: str, help_text: str, **how: Any) -> None:
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=help_text, **how)

    option(
        "model",
        "embedded (default; demo and explain take small if its base is installed), small, a local "
        "folder, a hub name or a GGUF file",
    )
    option("adapter", "LoRA adapter in PEFT's format: folder or hub name")
    option("style", "prompt style; default: the one that the model was trained for", choices=STYLES)
    option("target", "infer the instruction or the system prompt", choices=TARGETS)
    option("prompts-dir", "folder with the FLIP authors' prompt files")
    option("parser", "parser of the model's outputs", choices=("robust", "reference"))
    option(
        "json",
        "forced: the engine writes the literal parts of the JSON object",
        choices=("free", "forced"),
    )
    option(
        "on-failure", "reward of a row without an inferred instruction; default null", type=float
    )
    option("max-new-tokens", "maximum tokens of an output", type=int)
    option(
        "max-response-tokens",
        "maximum tokens of a response; a longer one loses its middle",
        type=int,
    )
    option("temperature", "0 (default) is greedy", type=float)
    option("top-p", "nucleus sampling: smallest set of tokens with this probability", type=float)
    option("top-k", "sample from this many of the most likely tokens", type=int)
    option("samples", "inversions per response; needs a temperature", type=int)
    option("seed", "seed of the sampling", type=int)
    option(
        "scoring",
        "F1 of a generated instruction, or its likelihood",
        choices=("generate", "likelihood"),
    )
    option("metric", "word_f1 (default), f_beta:2, token_f1, rouge_l, bleu, char_f1, cjk_f1, ...")
    option(
        "likelihood-baseline", "subtract the likelihood without the response", action="store_true"
    )
    option(
        "copy-guard",
        "report, mask or discount what a response copies from its instruction; default: off",
        choices=("off", "report", "mask", "discount"),
    )
    option("min-response-words", "responses with fewer words are not inverted; default 0", type=int)
    option("tool-calls", "count tool calls in messages as text", action="store_true")
    option("thinking", "let the model think before it answers", action="store_true")
    option("prompt-date", "today, to a chat template; default 2024-07-26", metavar="YYYY-MM-DD")
    option("device", "cpu, cuda, cuda:1")
    option("dtype", "dtype of the weights", choices=("float32", "bfloat16", "float16"))
    option(
        "weights",
        "native engine: floats, or quantised at load (int8 and int4 on a CPU, fp8 on CUDA); "
        "default: as a quantised checkpoint has them",
        choices=("float", "int8", "int4", "fp8"),
    )
    option("batch-size", "maximum rows that run together", type=int)
    option("backend", "native, transformers, vllm or a server's address; default: native if it can")
    option(
        "tokenizer", "folder or hub name of the tokenizer, if the server's model name is neither"
    )
    option("attention", "the native engine's attention backend")
    option("memory", "native engine: bytes besides the weights, or a share up to 1", type=float)
    parser.add_argument(
        "--fast",
        dest="deterministic",
        action="store_false",
        default=argparse.SUPPRESS,
        help="give up batch invariance where that is faster",
    )
    parser.add_argument(
        "--no-early-stop",
        dest="early_stop",
        action="store_false",
        default=argparse.SUPPRESS,
        help="let outputs continue after the instruction is complete",
    )
    option("revision", "branch, tag or commit of a hub model")
    option("trust-remote-code", "run Python code that comes with the model", action="store_true")


def add_out_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the output options of commands that write one line for each line they read."""
    parser.add_argument("--out", default="-", help=f"{what}; - (default) for standard output")
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted run that wrote to OUT"
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
        help="options of a reward to compare with it; repeatable",
        **how,
    )
    parser.add_argument("--plot", metavar="FILE.png", help="plot the rewards against the base's")
    parser.add_argument("--json-out", metavar="FILE.json", help="write the figures and all rewards")


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `flipfast serve`, besides the model's."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=1, help="number of engine processes: one per GPU"
    )

    def limit(name: str, help_text: str, **how: Any) -> None:
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=help_text, **how)

    limit("api-key", "bearer token that callers must send; default: $FLIPFAST_API_KEY")
    limit("admin", "add routes for sleep, wake and new weights", action="store_true")
    limit("max-queue", "maximum rows in the queue; default 4096", type=int)
    limit("max-body", "maximum bytes of a request; default 16 MiB", type=int)
    limit("timeout", "maximum seconds per request; default 600", type=float)
    limit("cache-rewards", "inversions to keep for repeated rows; default 0", type=int)
    limit("log-texts", "log prompts and responses", action="store_true")


def add_tune_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `flipfast tune`."""
    parser.add_argument("--model", help="measure the shapes of this model: folder or hub name")
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=(),
        metavar="OUTxIN",
        help="measure these weights instead; default: those of Qwen 3",
    )
    dtypes = ("bfloat16", "float16", "float32", "fp8")
    parser.add_argument("--dtype", choices=dtypes, default="bfloat16", help="fp8: products alone")
    parser.add_argument("--device", help="cuda, cuda:1")
    parser.add_argument("--quick", action="store_true", help="a minute and a half at most")
    parser.add_argument("--out", metavar="FILE", help="write here; default: the user's own file")
    parser.add_argument("--packaged", action="store_true", help="write into the package")


def add_bench_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `flipfast bench`."""
    parser.add_argument("--quick", action="store_true", help="small sizes: three minutes at most")
    parser.add_argument(
        "--gpu", action="store_true", help="only benchmarks that need a CUDA device"
    )
    parser.add_argument("--only", nargs="+", default=(), metavar="SUITE", help="only these suites")
    parser.add_argument("--groups", metavar="FILE.jsonl", help="rows of the workloads")
    parser.add_argument("--report", action="store_true", help="write report.md with pictures, too")
    parser.add_argument(
        "--from", dest="run", metavar="RUN.json", help="write the report of this run"
    )
    parser.add_argument("--out", metavar="FOLDER", help="default: bench/results/<device>")
