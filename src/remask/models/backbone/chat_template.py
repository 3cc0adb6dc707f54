"""The chat template of a checkpoint, safe for untrusted text.

A template is a Jinja text that makes one text of a chat. It runs in a sandbox. Special tokens that
stand in the text of a message stay ordinary text: they are marked before the template is filled, so
only the special tokens of the template itself become tokens. Without such a text, the ids are those
of `apply_chat_template` in the transformers library.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from remask.errors import BackendError
from remask.models.backbone.checkpoint_files import (
    CONFIG_FILE,
    GENERATION_FILE,
    TEMPLATE_FILE,
    read_json,
    require_plain,
)
from remask.types import Chat, Message

MAX_TEMPLATE_BYTES = 1 << 20
MAX_KEPT_PREFIXES = 256
# Tokens that end an answer in some family, whether or not the files name them.
END_TOKENS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>")
_PRIVATE_USE = range(0xE000, 0xF900)  # code points that have no meaning in Unicode


class ChatTemplate:
    """Encodes chats as the checkpoint in `folder` was trained to read them."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, place: str) -> None:
        """`place` is the name of the checkpoint in messages. Raises BackendError."""
        settings = _read_optional(folder / "tokenizer_config.json")
        text = _read_template(folder, settings, place)
        self._place = place
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._ids = {token.content: int(id) for id, token in added.items() if token.content}
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._variables = {
            # Models that can think answer at once: a chosen label is the beginning of an answer.
            "enable_thinking": False,
            **{key: _read_token(settings.get(key)) for key in ("bos_token", "eos_token")},
        }
        try:
            self._template = _make_environment().from_string(text)
        except jinja2.TemplateError as error:
            raise BackendError(f"{place}: its chat template cannot be read ({error})") from error
        self.stops = frozenset(_find_stops(folder, settings, tokenizer))
        if not self.stops:
            raise BackendError(f"{place}: no file names the token that ends an answer (eos_token_id)")
        parts = json.dumps([text, self._variables, sorted(self.stops)], sort_keys=True)
        self.identity = f"template-{hashlib.sha256(parts.encode()).hexdigest()[:16]}"
        self._find_prefix = lru_cache(MAX_KEPT_PREFIXES)(self._compute_prefix)
        self.encode((Message("user", "Hello"),))  # a template that cannot be filled is found here

    def encode(self, chat: Chat) -> tuple[tuple[int, ...], list[int]]:
        """Encode a chat and the opening of the answer.

        Returns the beginning, which all chats with the same system message share, and the rest.
        Raises BackendError where the template refuses the chat.
        """
        ids = self._encode(chat)
        has_system = bool(chat) and chat[0].role == "system"
        prefix = self._find_prefix(chat[0].content if has_system else None)
        if tuple(ids[: len(prefix)]) != prefix:
            return (), ids
        return prefix, ids[len(prefix) :]

    def _compute_prefix(self, system: str | None) -> tuple[int, ...]:
        """Return the ids up to the last special token before the first user message differs.

        A special token is a boundary for every tokenizer, so the ids before it do not depend on
        what follows.
        """
        first = () if system is None else (Message("system", system),)
        one, other = (self._encode((*first, Message("user", text))) for text in ("a", "1"))
        shared = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
        added = set(self._ids.values())
        last = max((i for i in range(shared) if one[i] in added), default=-1)
        return tuple(one[: last + 1])

    def _encode(self, chat: Chat) -> list[int]:
        mark = ""
        if any(self._special.search(message.content) for message in chat):
            together = "".join(message.content for message in chat)
            mark = next(chr(code) for code in _PRIVATE_USE if chr(code) not in together)
        filled = self._fill(chat, mark)
        ids: list[int] = []
        start = 0
        for found in self._special.finditer(filled):
            ids += self._encode_text(filled[start : found.start()], mark)
            ids.append(self._ids[found[0]])
            start = found.end()
        return ids + self._encode_text(filled[start:], mark)

    def _fill(self, chat: Chat, mark: str) -> str:
        """Return the chat as one text. `mark` splits special tokens in the text of messages."""

        def hide(text: str) -> str:
            return self._special.sub(lambda found: f"{found[0][0]}{mark}{found[0][1:]}", text)

        messages = [{"role": message.role, "content": hide(message.content)} for message in chat]
        try:
            return self._template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=True, **self._variables
            )
        except Exception as error:  # a template may raise any kind of error
            raise BackendError(f"{self._place}: its chat template refuses this chat ({error})") from error

    def _encode_text(self, text: str, mark: str) -> list[int]:
        text = text.replace(mark, "") if mark else text
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids if text else []
        return ids


def _make_environment() -> ImmutableSandboxedEnvironment:
    """Make the environment of the transformers library, but without a clock.

    Templates of Llama 3.1 and later then write a fixed date, so an answer does not depend on the
    day.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(
        value, ensure_ascii=False, indent=options.get("indent")
    )

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.globals["raise_exception"] = refuse
    return environment


def _read_template(folder: Path, settings: dict[str, Any], place: str) -> str:
    """Return the chat template of the folder. Raises BackendError if it has none."""
    path = folder / TEMPLATE_FILE
    if path.is_file():
        require_plain(path, MAX_TEMPLATE_BYTES)
        return path.read_text("utf-8")
    found = settings.get("chat_template")
    if isinstance(found, list):  # several by name
        named = {str(row.get("name")): row.get("template") for row in found if isinstance(row, dict)}
        found = named.get("default")
    if not isinstance(found, str) or not found.strip():
        raise BackendError(
            f"{place}: has no chat template, so it is not known how the model reads a chat; name an "
            f"instruct or chat model, or put its {TEMPLATE_FILE} into the folder"
        )
    return found


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _read_token(value: Any) -> str:
    """Return the text of a token in tokenizer_config.json: a text, or an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _find_stops(folder: Path, settings: dict[str, Any], tokenizer: Tokenizer) -> Iterable[int]:
    """Yield the ids that end an answer: those that the files name, and the known ones."""
    for name in (GENERATION_FILE, CONFIG_FILE):
        given = _read_optional(folder / name).get("eos_token_id")
        ids: Sequence[Any] = given if isinstance(given, list) else [given]
        yield from (id for id in ids if type(id) is int)
    for token in (_read_token(settings.get("eos_token")), *END_TOKENS):
        id = tokenizer.token_to_id(token) if token else None
        if id is not None:
            yield id
