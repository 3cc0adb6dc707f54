"""What may hide in a text: invisible characters, chat marks, and the words a reader sees.

The one definition of what is untrusted in a text: `condition` strips it from traces, `guard` keeps
it out of prompts, and whatever is printed goes through `visible`. Also how a text is clipped, and
how a call of a tool is written as text. Knows nothing of prompts, traces or models.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

# Control characters except tab and newline, soft hyphens, zero-width and bidirectional marks,
# line separators, private use, replacement and tag characters. Emoji selectors (FE0F) are fine.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\uffff\ud800-\udfff"
    "\ue000-\uf8ff\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)

# Marks by which chat templates and tokenizers tell roles and special tokens.
CHAT_MARK = re.compile(
    r"<[|｜][^<>\n]{0,48}?[|｜]>|</?[|｜]|[|｜]>"
    r"|\[/?(?:INST|SYS|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT)\]|<</?SYS>>"
    r"|\[/?(?:g?MASK|PAD|CLS|SEP|UNK|BOS|EOS)\]|\[\[/?keep\]\]"
    r"|</?(?:s|bos|eos|pad|unk|mask|start_of_turn|end_of_turn|start_header_id|end_header_id)>"
    r"|<unused\d+>",
    re.IGNORECASE,
)

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # Unicode categories

_BLANKS = re.compile(r"\s+")
_WORD = re.compile(r"\w+(?:['’]\w+)*")


def clean(text: str) -> str:
    """`text` on one line without invisible characters and chat marks."""
    text = INVISIBLE.sub("", text.replace("\r", "\n"))
    while (shorter := CHAT_MARK.sub(" ", text)) != text:  # what is left may make a new mark
        text = shorter
    return _BLANKS.sub(" ", text).strip()


def make_visible(text: str) -> str:
    """`text` with control, invisible and direction characters written out as code points."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in HIDDEN else f"\\u{ord(c):04x}"
        for c in text.replace("\r\n", "\n")
    )


def one_line(text: str, width: int = 0) -> str:
    """`visible` text without line ends; clipped to `width` characters where that is above 0."""
    line = " ".join(make_visible(text).split())
    return clip(line, width) if width else line


def clip(text: str, width: int) -> str:
    """At most `width` characters, the last one "…" where something is left out."""
    return text if len(text) <= width else text[: width - 1] + "…"


def clip_words(text: str, limit: int, mark: str = " …", word_chars: int = 0) -> str:
    """At most `limit` words, with `mark` where something is left out. `word_chars`: how long a word
    may be on average, where that is above 0: texts without spaces (CJK, base64) are one word."""
    found = text.split(None, limit)
    kept = text if len(found) <= limit else " ".join(found[:limit])
    longest = limit * word_chars
    if longest and len(kept) > longest:
        kept = kept[:longest].rsplit(" ", 1)[0]
    return text if kept == text else kept + mark


def split_words(text: str) -> list[str]:
    """The words of `text`, case-folded, without punctuation."""
    return _WORD.findall(text.casefold())


def format_call(name: str, arguments: Mapping[str, Any]) -> str:
    """A call of a tool as people write it: `find(name="Ann", limit=3)`."""
    pairs = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    return f"{name}({', '.join(pairs)})"
