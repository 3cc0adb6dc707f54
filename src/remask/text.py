"""What may hide in a text: invisible characters, chat marks, and the words a reader sees.

The one definition of what is untrusted in a text: `condition` strips it from traces, `guard` keeps
it out of prompts. Also how a call of a tool is written as text. Knows nothing of prompts, traces
or models.
"""

import json
import re
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

_BLANKS = re.compile(r"\s+")
_WORD = re.compile(r"\w+(?:['’]\w+)*")


def clean(text: str) -> str:
    """`text` on one line without invisible characters and chat marks."""
    text = INVISIBLE.sub("", text.replace("\r", "\n"))
    while (shorter := CHAT_MARK.sub(" ", text)) != text:  # what is left may make a new mark
        text = shorter
    return _BLANKS.sub(" ", text).strip()


def words(text: str) -> list[str]:
    """The words of `text`, case-folded, without punctuation."""
    return _WORD.findall(text.casefold())


def spelled_call(name: str, arguments: Mapping[str, Any]) -> str:
    """A call of a tool as people write it: `find(name="Ann", limit=3)`."""
    pairs = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    return f"{name}({', '.join(pairs)})"
