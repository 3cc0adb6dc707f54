"""Handle untrusted text: invisible characters, chat marks, words, clipping, calls of tools.

This module defines what is dangerous in a text. Traces are cleaned of it, the guard keeps it out of
prompts, and everything that is printed passes `make_visible`.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

# Control characters except tab and newline, soft hyphens, zero-width and bidirectional marks,
# line separators, private use, replacement and tag characters. Emoji selectors (FE0F) are fine.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\uffff\ud800-\udfff\ue000-\uf8ff\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)

# Marks that chat templates and tokenizers use for roles and special tokens.
CHAT_MARK = re.compile(
    r"<[|｜][^<>\n]{0,48}?[|｜]>|</?[|｜]|[|｜]>"
    r"|\[/?(?:INST|SYS|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT)\]|<</?SYS>>"
    r"|\[/?(?:g?MASK|PAD|CLS|SEP|UNK|BOS|EOS)\]|\[\[/?keep\]\]"
    r"|</?(?:s|bos|eos|pad|unk|mask|start_of_turn|end_of_turn|start_header_id|end_header_id)>"
    r"|<unused\d+>",
    re.IGNORECASE,
)

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # Unicode categories

_DIGIT_FORMS = re.compile(r"([ªº²³¹¼-¾⁰-₎ₐ-ₜ⅐-⅟↉])")
_BLANKS = re.compile(r"\s+")
_WORD = re.compile(r"\w+(?:['’]\w+)*")


def clean(text: str) -> str:
    """Return `text` on one line without invisible characters and chat marks."""
    text = INVISIBLE.sub("", text.replace("\r", "\n"))
    while (shorter := CHAT_MARK.sub(" ", text)) != text:  # the rest may form a new mark
        text = shorter
    return _BLANKS.sub(" ", text).strip()


def make_visible(text: str) -> str:
    """Write control, invisible and direction characters of `text` as code points."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in HIDDEN else f"\\u{ord(c):04x}"
        for c in text.replace("\r\n", "\n")
    )


def one_line(text: str, width: int = 0) -> str:
    """Return `text` visible and on one line, clipped to `width` characters where that is not 0."""
    line = " ".join(make_visible(text).split())
    return clip(line, width) if width else line


def clip(text: str, width: int) -> str:
    """Clip `text` to `width` characters; the last one is then "…"."""
    return text if len(text) <= width else text[: width - 1] + "…"


def clip_words(text: str, limit: int, mark: str = " …", word_chars: int = 0) -> str:
    """Clip `text` to `limit` words and add `mark` where something was left out.

    `word_chars`: maximum mean length of a word, if that is not 0. Texts without spaces (CJK,
    base64) are one word, so a limit of words would not clip them.
    """
    found = text.split(None, limit)
    kept = text if len(found) <= limit else " ".join(found[:limit])
    longest = limit * word_chars
    if longest and len(kept) > longest:
        kept = kept[:longest].rsplit(" ", 1)[0]
    return text if kept == text else kept + mark


def normalise(text: str) -> str:
    """Return `text` in Unicode's compatibility form NFKC, in which full-width letters are letters.

    Exponents, indices and fractions stay as they are: x² is not x2, and 7½ is not 71/2.
    """
    if text.isascii():
        return text
    parts = _DIGIT_FORMS.split(text)
    return "".join(p if i % 2 else unicodedata.normalize("NFKC", p) for i, p in enumerate(parts))


def split_words(text: str) -> list[str]:
    """Return the words of `text`, case-folded and without punctuation."""
    return _WORD.findall(text.casefold())


def format_call(name: str, arguments: Mapping[str, Any]) -> str:
    """Write a call of a tool as code: `find(name="Ann", limit=3)`."""
    pairs = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    return f"{name}({', '.join(pairs)})"
