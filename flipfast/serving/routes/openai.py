"""OpenAI-compatible routes, for routers and clients that support nothing else: plain inversions."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request

from flipfast.checks import brief, field_found
from flipfast.engine.sampling import SamplingParams
from flipfast.serving.observing import RequestRecord
from flipfast.serving.options import ServerOptions
from flipfast.serving.replies import ERRORS, DeadlineError, FieldError, Reply
from flipfast.serving.schema import ChatRequest
from flipfast.serving.scorer import Completion, ServedScorer

_USUAL_TOKENS = 512


def add_openai_routes(app: FastAPI, scorer: ServedScorer, options: ServerOptions) -> None:
    """Add `POST /v1/chat/completions` and `GET /v1/models`."""
    started = int(time.time())

    @app.post("/v1/chat/completions", responses=ERRORS, tags=["openai"])
    async def chat_completions(request: Request, body: ChatRequest) -> Reply:
        """Have the model answer a conversation, through its own chat template."""
        record = RequestRecord.of(request.scope)
        if options.log_texts:
            record.texts = body.messages
        messages = [_message(at, message) for at, message in enumerate(body.messages)]
        call = scorer.complete(messages, _sampling(body), seed=body.seed or 0, caller=record.caller)
        try:
            completion = await asyncio.wait_for(call, options.timeout)
        except asyncio.TimeoutError as error:
            raise DeadlineError(f"not done within {options.timeout:g} s") from error
        return Reply(_chat_completion(completion, scorer.status().model))

    @app.get("/v1/models", tags=["openai"])
    async def models() -> Reply:
        """List the one model that is served."""
        name = scorer.status().model
        model = {"id": name, "object": "model", "created": started, "owned_by": "flipfast"}
        return Reply({"object": "list", "data": [model]})


def _sampling(body: ChatRequest) -> SamplingParams:
    return SamplingParams(
        max_new_tokens=body.max_completion_tokens or body.max_tokens or _USUAL_TOKENS,
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k or 0,
    )


def _message(at: int, message: Mapping[str, Any]) -> dict[str, str]:
    """Return a message with its content as one string."""
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        wrong = field_found(message, "role")
        raise FieldError("messages", f'message {at}: {wrong}: use a string such as "user"')
    if isinstance(content, str):
        return {"role": role, "content": content}
    texts = [_part(at, part) for part in content] if isinstance(content, list) else None
    if texts is None:
        wrong = field_found(message, "content")
        raise FieldError("messages", f"message {at}: {wrong}: use a string or a list of text parts")
    return {"role": role, "content": "".join(texts)}


def _part(at: int, part: Any) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise FieldError("messages", f"message {at}: content has a part that is no text: {brief(part)}")


def _chat_completion(completion: Completion, model: str) -> dict[str, Any]:
    n_prompt, n_output = completion.n_prompt_tokens, completion.n_output_tokens
    message = {"role": "assistant", "content": completion.text}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": completion.finish_reason}],
        "usage": {
            "prompt_tokens": n_prompt,
            "completion_tokens": n_output,
            "total_tokens": n_prompt + n_output,
        },
    }
