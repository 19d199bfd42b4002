"""The bodies of requests and replies, as the OpenAPI page shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SkipValidation
from pydantic_core import PydanticCustomError

Message = dict[str, Any]


def _check_chat(value: Any) -> Any:
    """Validate with a single error message, where pydantic would give one per type."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(message, dict) for message in value):
        return value
    raise PydanticCustomError("chat", "Input should be a string or a list of messages")


Chat = Annotated[str | list[Message], BeforeValidator(_check_chat)]


class _Strict(BaseModel):
    """Rejects unknown fields and does not convert strings to numbers."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Lenient(BaseModel):
    """Ignores unknown fields: frameworks send more than is needed here."""

    model_config = ConfigDict(extra="ignore", strict=True)


class TextItem(BaseModel):
    """A response and the instruction that it should follow."""

    instruction: str = Field(description="The true instruction.")
    response: str = Field(description="The response to score.")
    context: str | None = Field(None, description="What came before the response.")


class ChatItem(BaseModel):
    """A prompt and a completion in the trainers' format."""

    prompt: Chat = Field(
        description="A string, or messages: the last user turn is the instruction, the turns "
        "before it are the context. Messages have `role` and `content`, or `from` and `value`."
    )
    completion: Chat | Message | None = Field(
        None,
        description="A string, a message, or messages: the last assistant turn counts. Of it, what "
        "stands in `<answer>` tags or after `</think>` is scored, otherwise the whole. Without a "
        "text the status is `contentless`.",
    )


class RewardsRequest(_Strict):
    """Rows to score. They share the engine with the rows of all other requests."""

    # An invalid item must only fail its own row, so the schema must not reject the request.
    items: list[SkipValidation[TextItem | ChatItem]] = Field(
        description="One item a row. A wrong item gives a row with the status `error`; the others "
        "get their rewards."
    )
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None,
        description="Seconds. Rows that are not done by then have the status `error`. The server's "
        "own limit holds too.",
    )


class Row(BaseModel):
    """The scores of one item."""

    reward: float | None = Field(
        description="Word F1 of the inferred and the true instruction, in [0, 1]; `on_failure` "
        "(null by default) where nothing could be inferred."
    )
    precision: float | None = Field(description="Share of the inferred words that are true.")
    recall: float | None = Field(description="Share of the true words that were inferred.")
    inferred: str = Field(description="The inferred instruction.")
    status: str = Field(
        description="`ok`, `recovered`, `prose`, `truncated`, `empty`, `unparsed`, "
        "`contentless` or `error`, with `+response_cut` appended where the response or the "
        "context lost its middle."
    )
    n_prompt_tokens: int = Field(description="Tokens of the prompt.")
    n_output_tokens: int = Field(description="Tokens that the model wrote.")
    error: str | None = Field(
        description="What was wrong, where the status is `error`, and why there is no text, where "
        "it is `contentless`."
    )


class RewardsReply(BaseModel):
    """One row per item, in the order of the items."""

    rows: list[Row]
    model: str = Field(description="The model that inferred the instructions.")


class GetRewardRequest(_Lenient):
    """OpenRLHF's request: all lists have one entry per row.

    An entry that is no text is a failure of its row alone.
    """

    query: list[SkipValidation[str]] = Field(description="Prompt and response in one text.")
    prompts: list[SkipValidation[str]] = Field(
        description="The prompt, with which the query begins."
    )
    labels: list[Any] | None = Field(
        None, description="The instruction; where it is no text or empty, the prompt is it."
    )


class GetRewardReply(BaseModel):
    """Numbers, one per row."""

    rewards: list[float]
    scores: list[float] = Field(description="The rewards once more.")
    extra_logs: dict[str, list[float]] = Field(
        description="`flip_failed`, `flip_precision`, `flip_recall`."
    )


class RemoteRmRequest(_Lenient):
    """slime's request: one sample, with one of the fields at least.

    slime sends a refused sample ten times and then ends the run, so a wrong or missing field is
    a failed row.
    """

    prompt: SkipValidation[Chat | None] = Field(
        None, description="The prompt: a string or messages."
    )
    response: SkipValidation[str | None] = Field(None, description="The response to score.")
    label: Any = Field(None, description="The instruction, where it is a text and not empty.")


class ChatRequest(_Lenient):
    """The useful subset of OpenAI's request: no tools, no streaming, one choice.

    The default temperature is 0, not 1.
    """

    messages: list[Message] = Field(min_length=1, description="With `role` and `content`.")
    model: str | None = Field(None, description="Not looked at: there is one model.")
    max_tokens: int | None = Field(None, ge=1, description="Most tokens to write.")
    max_completion_tokens: int | None = Field(None, ge=1, description="The same, by its new name.")
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False, description="0 is greedy.")
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, description="0 takes all tokens.")
    seed: int | None = Field(None, description="Of the sampling; without one it is 0.")
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    stream: Literal[False] | None = None
    logprobs: Literal[False] | None = None
    stop: Annotated[list[str], Field(max_length=0)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None


class SleepRequest(_Strict):
    """What to keep while the engine sleeps."""

    drop_weights: bool = Field(
        False, description="Keep no copy of the weights: they must be given again."
    )


class WeightsRequest(_Strict):
    """Where the new weights are."""

    folder: str = Field(description="A folder on the server's machine, with safetensors.")


class Done(BaseModel):
    """The state after the call."""

    state: str


class Problem(BaseModel):
    """What was wrong with the request."""

    message: str
    type: str
    param: str | None = Field(description="The field that is meant, where it is one.")


class ErrorReply(BaseModel):
    """The body of every error reply."""

    error: Problem
