"""The inverter that runs on an OpenAI-compatible server: vLLM, SGLang, llama.cpp."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from flipfast.backends._completions import Call, CompletionsServer
from flipfast.backends._generation import end_ids, read_generation_config, stop_strings
from flipfast.backends._loading import TOKENIZER_FILES, load_tokenizer
from flipfast.backends._seeds import narrow_seed
from flipfast.backends._stopping import before_stop
from flipfast.backends.base import Inversion, InversionRequest, Inverter, SamplingParams
from flipfast.engine.models.hub import fetch
from flipfast.env import openai_api_key
from flipfast.errors import ConfigError, FlipfastError, ModelLoadError

_BATCH_SIZE = 64


def load(
    model: str,
    *,
    address: str | None = None,
    tokenizer: str | None = None,
    batch_size: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    memory: float | None = None,
) -> OpenAIInverter:
    """Use a model that a server runs, with its tokenizer from a folder or the hub.

    Prompts are sent as token ids to `/v1/completions`, which vLLM, SGLang and llama.cpp's server
    accept; one short request checks this. If OPENAI_API_KEY is set, it is sent as the bearer key.

    Args:
        model: the server's name for the model.
        address: of the server, "http://host:8000".
        tokenizer: a local folder or hub name with the model's tokenizer and configs; None uses
            `model`.
        batch_size: maximum number of concurrent requests, by default 64.
        revision: branch, tag or commit of the hub model with the tokenizer.
        trust_remote_code: run Python code that comes with the tokenizer.
        device, dtype, memory: must be None; the server sets them.

    Raises:
        ConfigError: an option that cannot be used.
        ModelLoadError: the server cannot be reached, does not serve the model or does not accept
            token ids, or the tokenizer cannot be loaded.
    """
    if address is None:
        raise ConfigError(
            "backend='openai_http' needs to know where: give the server's address as the backend, "
            "such as backend='http://localhost:8000'"
        )
    for name, value in {"device": device, "dtype": dtype, "memory": memory}.items():
        if value is not None:
            raise ConfigError(
                f"{name}={value!r} is for the server at {address} to know: start it with that, "
                "and leave it out here"
            )
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
    n_requests = batch_size or _BATCH_SIZE
    server = CompletionsServer(address, openai_api_key(), n_requests)
    try:
        card = _card(server, model)
        folder = _folder(model, tokenizer, revision)
        config, generation_config = _configs(folder, trust_remote_code)
        inverter = OpenAIInverter(
            server,
            model,
            load_tokenizer(tokenizer or model, folder, config.vocab_size, trust_remote_code),
            generation_config,
            context_length=_context_length(card, config),
            vocab_size=config.vocab_size,
            batch_size=n_requests,
        )
        inverter.check_token_ids()
    except BaseException:
        server.close()
        raise
    return inverter


class OpenAIInverter(Inverter):
    """Runs each request as one call of a server's `/v1/completions`.

    Prompts go in as token ids, so that prompt and truncation match every other backend. Outputs
    come back as token ids if the server supports `return_token_ids`; otherwise `output_ids` come
    from tokenizing its text again, and may differ from those that the model wrote.

    Args:
        server: the server that runs the model.
        model: the server's name for the model.
        tokenizer: the model's tokenizer.
        generation_config: the model's; only its end tokens, stop strings and repetition penalty
            are used.
        context_length: maximum number of tokens of prompt and output together.
        vocab_size: token ids are in [0, vocab_size).
        batch_size: maximum number of concurrent requests.
    """

    def __init__(
        self,
        server: CompletionsServer,
        model: str,
        tokenizer: PreTrainedTokenizerBase,
        generation_config: GenerationConfig,
        *,
        context_length: int,
        vocab_size: int,
        batch_size: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.vocab_size = vocab_size
        self._server: CompletionsServer | None = server
        self._model = model
        self._batch_size = batch_size
        self._end_ids = end_ids(generation_config.eos_token_id, tokenizer)
        self._stop_strings = stop_strings(generation_config)
        self._repetition_penalty = generation_config.repetition_penalty or 1.0

    @property
    def max_running(self) -> int:
        """Number of requests sent to the server at a time."""
        return self._batch_size

    def generate(
        self,
        requests: Sequence[InversionRequest],
        sampling: SamplingParams,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Inversion]:
        """Continue every prompt; see `Inverter.generate`.

        A request that the server refuses gets its own error. Once a request has failed to reach
        the server after several attempts, unsent requests fail at once with the same error.
        """
        if self._server is None:
            raise FlipfastError("this inverter is closed; load it again to use it")
        report = on_progress or (lambda n_done: None)
        call = Call(self._server)
        done: dict[int, Inversion] = {}
        pool = ThreadPoolExecutor(self._batch_size)
        try:
            sent = {
                pool.submit(self._invert, call, request, sampling): i
                for i, request in enumerate(requests)
            }
            for future in as_completed(sent):
                done[sent[future]] = future.result()
                report(len(done))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return [done[i] for i in range(len(requests))]

    def check_token_ids(self) -> None:
        """Check that the server accepts a prompt given as token ids.

        Raises:
            ModelLoadError: it does not.
        """
        assert self._server is not None
        ids = self.tokenizer("one two three", add_special_tokens=False).input_ids
        body = self._body(InversionRequest(ids), SamplingParams(1))
        try:
            counted = self._server.complete(body)["usage"].get("prompt_tokens", len(ids))
        except FlipfastError as error:
            raise _no_token_ids(self._server.address, str(error)) from error
        if counted != len(ids):
            raise _no_token_ids(
                self._server.address, f"it counted {counted} tokens in a prompt of {len(ids)}"
            )

    def close(self) -> None:
        """Close the connections; the inverter cannot be used afterwards."""
        if self._server is not None:
            self._server.close()
        self._server = None

    def _invert(self, call: Call, request: InversionRequest, sampling: SamplingParams) -> Inversion:
        refusal = self.refusal(request, sampling)
        if refusal is not None:
            return Inversion.failed(refusal)
        try:
            return self._inversion(call.complete(self._body(request, sampling)))
        except FlipfastError as error:
            return Inversion.failed(str(error))

    def _body(self, request: InversionRequest, sampling: SamplingParams) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": list(request.prompt_ids),
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "return_token_ids": True,
        }
        if self._end_ids:
            body["stop_token_ids"] = sorted(self._end_ids)
        if self._stop_strings:
            body["stop"] = list(self._stop_strings)
        if self._repetition_penalty != 1.0:
            body["repetition_penalty"] = self._repetition_penalty
        if sampling.temperature > 0:  # set all: a server may default to the model's own values
            body |= {
                "top_p": sampling.top_p,
                "top_k": sampling.top_k or -1,
                "min_p": 0.0,
                "seed": narrow_seed(request.seed),
            }
        return body

    def _inversion(self, choice: dict[str, Any]) -> Inversion:
        reason, text, ids = (choice.get(key) for key in ("finish_reason", "text", "token_ids"))
        if reason not in ("stop", "length") or not isinstance(text, str):
            return Inversion.failed(
                f"the server ended the request with {reason!r}: {choice!r:.200}"
            )
        if not isinstance(ids, list):
            output_ids = self.tokenizer(text, add_special_tokens=False).input_ids
            return Inversion(output_ids, text, reason)
        if reason == "stop" and ids and ids[-1] in self._end_ids:
            ids = ids[:-1]
        elif reason == "stop" and self._stop_strings:
            return Inversion(*before_stop(self.tokenizer, ids, self._stop_strings), reason)
        return Inversion(ids, self.decode(ids), reason)


def _card(server: CompletionsServer, model: str) -> dict[str, Any]:
    try:
        cards = server.models()
    except FlipfastError as error:
        raise ModelLoadError(f"cannot ask for the models of a server: {error}") from error
    found = next((card for card in cards if card.get("id") == model), None)
    if found is None:
        served = ", ".join(repr(card.get("id")) for card in cards)
        raise ModelLoadError(
            f"{server.address} does not serve {model!r} but {served}: name the model as it does, "
            "and its tokenizer with tokenizer='...' where that is no folder or hub name"
        )
    return found


def _folder(model: str, tokenizer: str | None, revision: str | None) -> Path:
    try:
        return fetch(tokenizer or model, revision, TOKENIZER_FILES)
    except ModelLoadError as error:
        if tokenizer is not None:
            raise
        raise ModelLoadError(
            f"{error}; where the server's name for a model is no folder or hub name, say with "
            "tokenizer='...' where its tokenizer is"
        ) from error


def _configs(folder: Path, trust_remote_code: bool) -> tuple[Any, GenerationConfig]:
    """The text model's config and its generation config."""
    try:
        config = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
        return config.get_text_config(), read_generation_config(folder)
    except Exception as error:
        raise ModelLoadError(
            f"the tokenizer's folder {folder} needs the model's config.json, too: {error!s:.300}"
        ) from error


def _context_length(card: dict[str, Any], config: Any) -> int:
    """The limit that the server reports (vLLM, SGLang or llama.cpp field), else the model's own."""
    said = card.get("max_model_len") or (card.get("meta") or {}).get("n_ctx")
    return int(said or getattr(config, "max_position_embeddings", None) or sys.maxsize)


def _no_token_ids(address: str, reason: str) -> ModelLoadError:
    return ModelLoadError(
        f"{address} does not take token ids at /v1/completions, which the prompts need to arrive "
        f"as they are: {reason}; use a server that does, such as vLLM, SGLang or llama.cpp's"
    )
