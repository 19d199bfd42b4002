"""Small random models of the families that FLIP was published with, saved as ordinary folders."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 384  # more rows than the tokenizer has tokens, as in many published models
WINDOW = 16

_SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    # Wide weights: the default leaves a random model repeating one token.
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "qwen3": ("Qwen3Config", {}),
    "olmo2": ("Olmo2Config", {}),
    "mistral": ("MistralConfig", {"sliding_window": WINDOW}),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "query_pre_attn_scalar": 16,
            # Tied, the scaled embedding drowns all else and the model echoes its last token.
            "tie_word_embeddings": False,
        },
    ),
    "phi3-longrope": (
        "Phi3Config",
        {
            "original_max_position_embeddings": 64,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 8,
                "long_factor": [4.0] * 8,
                "original_max_position_embeddings": 64,
            },
        },
    ),
}


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer of 320 tokens; ids 0 and 1 open and end a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 4, trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="session")
def model_folder(
    tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path
) -> Callable[[str], Path]:
    """A function from a family's name to the folder of its random model, made once a session."""
    folders: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in folders:
            path = tmp_path_factory.mktemp(family)
            config_class, extra = _FAMILIES[family]
            save_model(path, getattr(transformers, config_class)(**{**_SHAPE, **extra}))
            save_tokenizer(path, tokenizer_file)
            folders[family] = path
        return folders[family]

    return folder


def save_model(path: Path, config: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for name, weight in model.named_parameters():
            if "norm" in name:  # fresh norms are all alike, which would hide a mix-up
                torch.nn.init.uniform_(weight, 0.5, 1.5)
    model.save_pretrained(path)


def save_tokenizer(path: Path, tokenizer_file: Path) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file), bos_token="<s>", eos_token="</s>"
    )
    tokenizer.save_pretrained(path)


@pytest.fixture(scope="session")
def generate_alone() -> Callable[..., list[list[int]]]:
    """The oracle: new token ids of `model.generate(do_sample=False)`, a prompt at a time."""

    def run(
        folder: Path, prompts: list[list[int]], max_new_tokens: int, device: str = "cpu"
    ) -> list[list[int]]:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model = model.to(device)
        outputs = []
        for prompt in prompts:
            ids = torch.tensor([prompt], device=device)
            mask = torch.ones_like(ids)
            out = model.eval().generate(
                ids, attention_mask=mask, do_sample=False, max_new_tokens=max_new_tokens
            )
            outputs.append(out[0, len(prompt) :].tolist())
        return outputs

    return run


@pytest.fixture(scope="session")
def random_prompts() -> Callable[..., list[list[int]]]:
    """Prompts of the given lengths, of ordinary tokens, always the same ones."""

    def make(lengths: list[int]) -> list[list[int]]:
        rng = random.Random(3)
        return [[rng.randrange(2, VOCAB_SIZE) for _ in range(length)] for length in lengths]

    return make


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small only lose time to threads that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
