"""Small random models of the families that FLIP was published with, saved as ordinary folders."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from flipfast.backends import Inversion, InversionRequest, SamplingParams
from flipfast.backends._sampling import SeededSampler

VOCAB_SIZE = 384  # more rows than the tokenizer has tokens, as in many published models
WINDOW = 16
# By so much may logits differ with other sums and nothing else changes: what float32 makes of these
# models is off by some 1e-5 to 2e-4, on any processor.
STEADY = 1e-3

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
    """The oracle: new token ids of `model.generate(do_sample=False)`, a prompt at a time.

    It refuses near ties, which other sums of the same numbers may decide in another way.
    """

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
                ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=max_new_tokens,
                output_scores=True,
                return_dict_in_generate=True,
            )
            best, second = torch.cat(out.scores).topk(2).values.unbind(-1)
            assert (best - second).min() > STEADY, "a near tie: take other prompts"
            outputs.append(out.sequences[0, len(prompt) :].tolist())
        return outputs

    return run


@pytest.fixture(scope="session")
def random_prompts() -> Callable[..., list[list[int]]]:
    """Prompts of the given lengths, of ordinary tokens, always the same ones."""

    def make(lengths: list[int]) -> list[list[int]]:
        rng = random.Random(38)  # no continuation here comes near to a tie
        return [[rng.randrange(2, VOCAB_SIZE) for _ in range(length)] for length in lengths]

    return make


def assert_steady(
    folder: Path,
    requests: Sequence[InversionRequest],
    results: Sequence[Inversion],
    sampling: SamplingParams,
) -> None:
    """That the results are no matter of rounding: disturbed logits make the same draws."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    generator = torch.Generator().manual_seed(0)
    for request, result in zip(requests, results, strict=True):
        ends = [model.config.eos_token_id] * (result.finish_reason == "stop")
        tokens = [*result.output_ids, *ends]
        with torch.no_grad():
            logits = model(torch.tensor([[*request.prompt_ids, *tokens]])).logits
        logits = logits[0, -len(tokens) - 1 : -1]
        for _ in range(8):
            noise = STEADY * torch.randn(logits.shape, generator=generator, dtype=torch.float64)
            scores = list((logits + noise)[:, None])
            if sampling.temperature > 0:
                scores = map(SeededSampler([request.seed], sampling), [None] * len(scores), scores)
            draws = [row.argmax().item() for row in scores]
            assert draws == tokens, "a near tie: take other prompts or seeds"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small only lose time to threads that wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
