"""Requests and answers of the Chat Completions API, as far as the embedded target can serve them.

Shapes: OpenAI's API reference, "Create chat completion", "The chat completion chunk object" and
"Error codes" (2026). What would change an answer and cannot be honoured is refused; fields that
change nothing here are ignored. Knows no models and no HTTP server.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from remask.models.generate import Decoding, Finish, Token
from remask.trace import Chat, Message, Role

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MODEL = "embedded"
DEFAULT_TOKENS = 256  # of an answer, where the request says nothing


class Problem(Exception):
    """A request that is refused, and why."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


def error_body(problem: Problem) -> bytes:
    """The error object that clients know."""
    kind = "invalid_request_error" if problem.status < 500 else "server_error"
    error = {
        "message": str(problem),
        "type": kind,
        "param": problem.param,
        "code": problem.code,
    }
    return orjson.dumps({"error": error})


# --- requests


class _Part(BaseModel):
    type: Literal["text"]  # the model reads nothing else
    text: str


class _Turn(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None

    def message(self) -> Message:
        role: Role = "system" if self.role == "developer" else self.role
        content = self.content or ""
        text = content if isinstance(content, str) else "\n".join(part.text for part in content)
        return Message(role, text)


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _Text(BaseModel):
    type: Literal["text"]


_UNSUPPORTED = {
    *("n", "frequency_penalty", "presence_penalty", "logit_bias", "tools", "functions"),
    "response_format.type",
}
_Stop = Annotated[str, Field(min_length=1, max_length=256)]


class ChatRequest(BaseModel):
    """The body of POST /v1/chat/completions."""

    model_config = ConfigDict(strict=True, frozen=True)

    model: str
    messages: Annotated[list[_Turn], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    # _UNSUPPORTED: accepted only where they ask for nothing.
    n: Literal[1] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    response_format: _Text | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs = true")
        return self

    @property
    def chat(self) -> Chat:
        return tuple(turn.message() for turn in self.messages)

    def decoding(self, room: int) -> Decoding:
        """How to answer; `room`: tokens that the model's window has left."""
        wanted = self.max_completion_tokens or self.max_tokens or DEFAULT_TOKENS
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Decoding(
            min(wanted, room),
            0.0 if self.temperature is None else self.temperature,
            1.0 if self.top_p is None else self.top_p,
            secrets.randbits(62) if self.seed is None else self.seed,
            stop,
            self.top_logprobs or 0,
        )


def parse(body: bytes) -> ChatRequest:
    """Raises Problem where the body is no such request, or asks for what cannot be done."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"the body is not valid JSON: {error}") from None
    try:
        request = ChatRequest.model_validate(value)
    except ValidationError as error:
        raise _problem(error.errors(include_url=False, include_input=False)[0]) from None
    if request.model != MODEL:
        raise Problem(
            404,
            f"the model {request.model!r} does not exist; there is {MODEL!r}",
            "model",
            "model_not_found",
        )
    return request


def _problem(error: "ErrorDetails") -> Problem:
    where = ".".join(map(str, error["loc"]))
    if where in _UNSUPPORTED:
        message = f"the embedded model cannot do what {where} asks for; leave it out"
        return Problem(400, message, where, "unsupported_value")
    message = error["msg"].removeprefix("Value error, ")
    return Problem(400, f"{where}: {message}" if where else message, where or None, "invalid_value")


# --- answers


class Reply:
    """The shapes of one answer, whole or in chunks; all share an id and a time."""

    def __init__(self, created: int, fingerprint: str) -> None:
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": created,
            "model": MODEL,
            "system_fingerprint": fingerprint,
        }

    def whole(
        self, text: str, tokens: Sequence[Token] | None, finish: Finish, usage: Mapping[str, int]
    ) -> bytes:
        """A chat.completion; `tokens` None: no log-probabilities are wanted."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": _logprobs(tokens),
            "finish_reason": finish,
        }
        body = {"object": "chat.completion", **self._head, "choices": [choice], "usage": usage}
        return orjson.dumps(body)

    def chunk(
        self, delta: Mapping[str, str], tokens: Sequence[Token] | None, finish: Finish = ""
    ) -> bytes:
        """A server-sent event with a chat.completion.chunk."""
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": _logprobs(tokens),
            "finish_reason": finish or None,
        }
        return self._event([choice])

    def usage_chunk(self, usage: Mapping[str, int]) -> bytes:
        """The last event where usage is wanted."""
        return self._event([], usage=usage)

    def _event(self, choices: list[Any], **more: Any) -> bytes:
        body = {"object": "chat.completion.chunk", **self._head, "choices": choices, **more}
        return b"data: " + orjson.dumps(body) + b"\n\n"


END = b"data: [DONE]\n\n"


def error_event(problem: Problem) -> bytes:
    """What went wrong after an answer had begun."""
    return b"data: " + error_body(problem) + b"\n\n"


def usage(read: int, written: int) -> dict[str, int]:
    """Tokens of the chat and of the answer, without the end of its turn."""
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }


def models(created: int) -> bytes:
    """The list of models: one."""
    return orjson.dumps({"object": "list", "data": [_card(created)]})


def model(created: int) -> bytes:
    return orjson.dumps(_card(created))


def _card(created: int) -> dict[str, Any]:
    return {"id": MODEL, "object": "model", "created": created, "owned_by": "remask"}


def _logprobs(tokens: Iterable[Token] | None) -> dict[str, Any] | None:
    if tokens is None:
        return None
    content = [
        {**_shown(t.text, t.logp), "top_logprobs": [_shown(*other) for other in t.top]}
        for t in tokens
    ]
    return {"content": content, "refusal": None}


def _shown(text: str, logp: float) -> dict[str, Any]:
    """A part of a character has no bytes of its own here: the tokenizer shows it as U+FFFD."""
    whole = "\ufffd" not in text
    return {"token": text, "logprob": logp, "bytes": list(text.encode()) if whole else None}
