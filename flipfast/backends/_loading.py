"""Loads a causal language model and its tokenizer through transformers, with clear errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from flipfast.backends._generation import end_ids
from flipfast.engine.models.hub import fetch, local_folder, not_cached, refusal
from flipfast.engine.options import DTYPES, resolve_device
from flipfast.errors import ConfigError, ModelLoadError

__all__ = [
    "TOKENIZER_FILES",
    "context_length",
    "load_model",
    "load_tokenizer",
    "quiet",
    "resolve_device",
    "resolve_dtype",
]

TOKENIZER_FILES = ["*.json", "*.model", "*.txt", "*.jinja", "*.py"]

_VOCABULARIES = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json")
_HUB_TIMEOUT_S = 10.0
_LONGEST_REASON = 300  # characters of another library's message; some are pages long

# Overrides for what a generation_config.json may ask for and a plain greedy run must not do. With
# do_sample off, transformers ignores its temperature and the like.
_PLAIN_FIELDS = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "max_length": None,
    "return_dict_in_generate": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_logits": False,
    "output_scores": False,
    "use_cache": True,  # training runs often save it switched off
    "max_time": None,
    "token_healing": False,
    "prompt_lookup_num_tokens": None,
    "penalty_alpha": None,
    "dola_layers": None,
    "pad_token_id": 0,  # only fills rows that have ended, so any id works
}


def resolve_dtype(dtype: str | None, device: torch.device) -> torch.dtype:
    """The weights' dtype; None takes bfloat16 on CUDA and float32 elsewhere.

    Raises:
        ConfigError: an unknown name.
    """
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; use one of: {', '.join(DTYPES)}")
    return DTYPES[dtype]


def load_model(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    revision: str | None,
    trust_remote_code: bool,
    tokenizer: str | None = None,
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load a model in eval mode and its tokenizer from a local folder or by hub name.

    Its generation_config is the folder's, changed to decode greedily: end tokens, to which the
    tokenizer's is added, and processors such as the repetition penalty are kept; sampling and beam
    search are disabled.

    Args:
        name: a local folder or a hub name.
        device, dtype: of the weights.
        revision: of a hub model; None is its main branch.
        trust_remote_code: run Python code that comes with the model or the tokenizer.
        tokenizer: a local folder or hub name with another tokenizer; None for the model's own.

    Raises:
        ModelLoadError: no such folder or hub model, or files that are missing or unusable.
    """
    where, local_only = _locate(name, revision)
    options: dict[str, Any] = {
        "revision": revision or "main",
        "trust_remote_code": trust_remote_code,
        "local_files_only": local_only,
    }
    try:
        if tokenizer is None:
            with quiet(progress_bars=not local_only):
                of_model = _tokenizer(name, where, options)
        else:
            folder = fetch(tokenizer, None, TOKENIZER_FILES)
            of_model = load_tokenizer(tokenizer, folder, None, trust_remote_code)
        with quiet(progress_bars=not local_only):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                where, dtype=dtype, output_loading_info=True, **options
            )
    except ModelLoadError:
        raise
    except OSError as error:  # raised by transformers for missing files
        raise ModelLoadError(_explain(name, where, local_only, error)) from None
    except Exception as error:
        raise ModelLoadError(_explain(name, where, local_only, error)) from error
    model, report = loaded
    # transformers fills tensors that a checkpoint lacks with random numbers.
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise ModelLoadError(
            f"the weights of {name!r} lack {len(lacking)} tensors of a {type(model).__name__}, "
            f"the first is {lacking[0]}; is it a causal language model, and complete?"
        )
    # It ignores the scales of quantized weights if config.json does not call them quantized, as
    # in an FP8 checkpoint that it has dequantized and saved (findings/transformers_fp8_saved.sh).
    unused = sorted(key for key in report["unexpected_keys"] if "weight_scale" in key)
    if unused:
        raise ModelLoadError(
            f"{name!r} holds {len(unused)} scales of quantized weights, the first is {unused[0]}, "
            "but its config.json has no quantization_config to apply them; take that of the "
            "checkpoint it was made from"
        )
    _convert_halves(model, dtype)
    for field, value in _PLAIN_FIELDS.items():
        setattr(model.generation_config, field, value)
    model.generation_config.eos_token_id = (
        sorted(end_ids(model.generation_config.eos_token_id, of_model)) or None
    )
    try:
        return model.to(device).eval(), of_model
    except Exception as error:  # out of memory, or a device that is not there after all
        raise ModelLoadError(
            f"could not move {name!r} to {device}: {_one_line(error)}; "
            "another device, a smaller dtype or a smaller model may help"
        ) from error


def _convert_halves(model: Any, dtype: torch.dtype) -> None:
    """Give the parameters in another 16-bit dtype than asked for that dtype.

    Beside weights that it dequantizes, transformers leaves the others in the checkpoint's dtype.
    What it keeps in float32 on purpose stays.
    """
    for parameter in model.parameters():
        if parameter.dtype in (torch.bfloat16, torch.float16) and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)


def load_tokenizer(
    name: str, folder: Path, vocab_size: int | None, trust_remote_code: bool
) -> PreTrainedTokenizerBase:
    """Load the tokenizer in a folder.

    Args:
        name: of the model, for messages.
        folder: with the tokenizer's files.
        vocab_size: rows of the model's embedding, if known.
        trust_remote_code: run Python code that comes with the tokenizer.

    Raises:
        ModelLoadError: it is not there, cannot be loaded, or has more tokens than the model.
    """
    options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        with quiet(progress_bars=False):
            tokenizer = _tokenizer(name, str(folder), options)
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(
            f"could not load the tokenizer of {name!r}: {_one_line(error)}"
        ) from error
    # Added tokens may lie past the embedding: the text models of Gemma 3 have one for images.
    if vocab_size is not None and tokenizer.vocab_size > vocab_size:
        raise ModelLoadError(
            f"the tokenizer of {name!r} has {tokenizer.vocab_size} tokens, the model's embedding "
            f"{vocab_size} rows: they do not belong together"
        )
    return tokenizer


def context_length(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Maximum number of tokens of prompt and output together; sys.maxsize if unlimited."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(limit or min(tokenizer.model_max_length, sys.maxsize))


def _locate(name: str, revision: str | None) -> tuple[str, bool]:
    """What to pass to from_pretrained, and whether it must use local files only."""
    folder = local_folder(name)
    if folder is not None:
        return str(folder), True
    # One short request first: from_pretrained retries an unreachable hub for every file in turn.
    try:
        HfApi().model_info(name, revision=revision, timeout=_HUB_TIMEOUT_S)
    except Exception as error:
        known = refusal(name, revision, error)
        if known is not None:
            raise ModelLoadError(known) from None
        return name, True  # no network, offline mode, a mirror without this call: use the cache
    return name, False


def _tokenizer(name: str, where: str, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    missing = ModelLoadError(
        f"could not load the tokenizer of {name!r}: {where} holds none (a tokenizer.json, a "
        "tokenizer.model, or a vocab.json with its merges.txt). Save the tokenizer there, too, or "
        "name a folder or hub model that has it with tokenizer='...'"
    )
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(where, **options)
    except Exception as error:
        folder = Path(where)
        if folder.is_dir() and not any(any(folder.glob(each)) for each in _VOCABULARIES):
            raise missing from error
        raise
    # Without a file, some classes start with their special tokens alone.
    if tokenizer.vocab_size <= len(tokenizer.all_special_ids):
        raise missing
    _check_added_ids(name, where, options.get("revision"), tokenizer)
    return tokenizer


def _check_added_ids(
    name: str, where: str, revision: str | None, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Refuse added tokens that get other ids than their file gives them.

    tokenizers does not read these ids: it counts on from the size of the vocabulary, which is wrong
    where the ids have a gap (findings/tokenizers_added_ids.sh).
    """
    if Path(where).is_dir():
        file: Any = Path(where, "tokenizer.json")
    else:
        file = try_to_load_from_cache(where, "tokenizer.json", revision=revision)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(file, str | Path) or not Path(file).is_file():
        return
    for token in json.loads(Path(file).read_text("utf-8")).get("added_tokens", []):
        loaded = backend.token_to_id(token["content"])
        if loaded not in (None, token["id"]):
            raise ModelLoadError(
                f"the token {token['content']!r} of {name!r} has the id {token['id']} in its "
                f"tokenizer.json, but tokenizers loads it as {loaded}, because the ids have a gap; "
                "give each missing id a token of its own in that file"
            )


def _explain(name: str, where: str, local_only: bool, error: Exception) -> str:
    if local_only and isinstance(error, OSError) and not Path(where).is_dir():
        return not_cached(name)
    return f"could not load {name!r}: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST_REASON]}"


@contextmanager
def quiet(*, progress_bars: bool) -> Iterator[None]:
    """Silence transformers' warnings, and its progress bars unless asked, within this context."""
    verbosity = logging.get_verbosity()
    hide_bars = logging.is_progress_bar_enabled() and not progress_bars
    logging.set_verbosity_error()
    if hide_bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if hide_bars:
            logging.enable_progress_bar()
