"""Handle untrusted text: invisible characters, chat marks, words, clipping, calls of tools.

This module defines what is dangerous in a text. Traces are cleaned of it, the guard keeps it out of
prompts, and everything that is printed passes `make_visible`.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

# Control characters except tab and newline, soft hyphens, zero-width and bidirectional marks,
# line separators, private use, replacement and tag characters. Emoji selectors (FE0F) are fine.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\uffff\ud800-\udfff\ue000-\uf8ff\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)

# Marks that chat templates and tokenizers use for roles and special tokens.
CHAT_MARK = re.compile(
    r"<[|｜][^<>\n]{0,48}?[|｜]>|</?[|｜]|[|｜]>"
    r"|\[/?(?:INST|SYS|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT)\]|<</?SYS>>"
    r"|\[/?(?:g?MASK|PAD|CLS|SEP|UNK|BOS|EOS)\]|\[\[(?:/?keep|component [^\n]*?)\]\]"
    r"|</?(?:s|bos|eos|pad|unk|mask|start_of_turn|end_of_turn|start_header_id|end_header_id)>"
    r"|<unused\d+>",
    re.IGNORECASE,
)

HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # Unicode categories

# How models mark thoughts: XML-like tags (DeepSeek, Qwen, EXAONE, Seed, Open WebUI), Mistral's
# brackets, Kimi's triangles, and the special tokens of Cohere, OpenThinker and Apertus.
_TAG = (
    r"(?:[\w.-]{1,20}[:_])?"
    "(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad|inner_monologue)"
)
_THOUGHT_MARKS = (
    (rf"<{_TAG}(?:\s[^<>]{{0,200}})?>", rf"</{_TAG}\s{{0,9}}>"),
    (r"<details\s[^<>]{0,80}type=[\"']?reasoning[^<>]{0,200}>", r"</details>"),
    (r"(?-i:\[THINK\])", r"(?-i:\[/THINK\])"),
    (r"◁think▷", r"◁/think▷"),
    (r"<\|(?:think|thinking|thought)\|>", r"<\|/(?:think|thinking|thought)\|>"),
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),
    (r"<\|begin_of_(?:thought|thinking)\|>", r"<\|end_of_(?:thought|thinking)\|>"),
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),
    (r"<unused94>(?:thought)?", r"<unused95>"),
)  # fmt: skip
_THOUGHTS = tuple(
    (
        re.compile(rf"(?<![`\"'])(?:{start})", re.IGNORECASE),
        re.compile(rf"(?:{end})(?![`\"'])", re.IGNORECASE),
    )
    for start, end in _THOUGHT_MARKS
)
# OpenAI's Harmony and Gemma 4 write each part of a response into a named channel.
_CHANNEL = re.compile(
    r"<\|channel\|?>\s{0,2}(\w+)(?:[^<\n]|<\|constrain\|>){0,80}?(?:<\|message\|>|\n)", re.IGNORECASE
)
_CHANNEL_END = re.compile(r"<\|(?:end|return|call)\|>|<\|start\|>|<channel\|>", re.IGNORECASE)
_HIDDEN_CHANNELS = frozenset({"analysis", "thought", "thinking"})
# The same Harmony where a decoder dropped its special tokens: only the names of the channels are left.
_BARE_CHANNELS = re.compile(
    r"\A\s{0,9}analysis(?=[^\s:.,;])(?:[\s\S]*assistant(?:final|commentary)\s{0,9}|(?=[A-Z])[\s\S]*\Z)"
)
# IBM Granite 3 writes headings in plain words.
_HEADINGS = re.compile(
    r"\A\s{0,9}Here(?:['’]s| is) my thought process:"
    r"(?:[\s\S]*?Here(?:['’]s| is) my response:\s{0,9}|[\s\S]*\Z)"
)
_THOUGHT_WORD = re.compile(
    r"(?i)think|thought|reasoning|reflection|scratchpad|monologue|channel|inner_prefix|unused94|\A\s{0,9}analysis"
)
# What wraps the answer where the thoughts are wrapped too.
_ANSWER_MARK = re.compile(
    r"<\|/?(?:(?:START|END)_(?:RESPONSE|TEXT)|(?:begin|end)_of_solution)\|>", re.IGNORECASE
)

_DIGIT_FORMS = re.compile(r"([ªº²³¹¼-¾⁰-₎ₐ-ₜ⅐-⅟↉])")
_BLANKS = re.compile(r"\s+")
_WORD = re.compile(r"\w+(?:['’]\w+)*")


def clean(text: str) -> str:
    """Return `text` on one line without invisible characters and chat marks."""
    text = INVISIBLE.sub("", text.replace("\r", "\n"))
    while (shorter := CHAT_MARK.sub(" ", text)) != text:  # the rest may form a new mark
        text = shorter
    return _BLANKS.sub(" ", text).strip()


def remove_thoughts(text: str) -> str:
    """Return the answer in a response of a model: its text without the thoughts that it marks.

    A closing mark without an opening one ends thoughts that begin with the response, because some
    chat templates write the opening mark into the request. An opening mark without a closing one
    begins thoughts that were cut off, where it stands at the start of the response. A mark in quotes
    or in backticks is a part of the answer.
    """
    # Nearly all texts have none, so the marks are not looked for. The second test is slow.
    begins = text[:17].lstrip().startswith(("analysis", "Here"))
    if not begins and "<" not in text and "THINK]" not in text and "◁" not in text:
        return text
    if not _THOUGHT_WORD.search(text):
        return text
    found = _HEADINGS.sub("", _BARE_CHANNELS.sub("", _select_channels(text)))
    for start, end in _THOUGHTS:
        found = _remove_blocks(found, start, end)
    if found == text:
        return text
    return _ANSWER_MARK.sub("", found).strip()


def _remove_blocks(text: str, start: re.Pattern[str], end: re.Pattern[str]) -> str:
    """Remove everything between an opening and its closing mark; blocks can be nested."""
    kept, at, depth, closed = [], 0, 0, False
    marks = [(m, True) for m in start.finditer(text)] + [(m, False) for m in end.finditer(text)]
    for mark, opens in sorted(marks, key=lambda pair: pair[0].start()):
        if opens:
            if depth == 0:
                kept.append(text[at : mark.start()])
                at = mark.start()
            depth += 1
        elif depth <= 1:
            if depth == 0:
                kept = []  # everything up to here was thought
            at, depth, closed = mark.end(), 0, True
        else:
            depth -= 1
    if depth and not closed and "".join(kept).strip():
        return "".join(kept) + text[at:]  # an opening mark behind an answer is a part of it
    return "".join(kept) + ("" if depth else text[at:])


def _select_channels(text: str) -> str:
    """Return the text of the channels that are not thoughts; `text` itself where there are none."""
    channels = list(_CHANNEL.finditer(text))
    if not channels:
        return text
    kept = [text[: channels[0].start()]]
    for number, channel in enumerate(channels):
        stop = channels[number + 1].start() if number + 1 < len(channels) else len(text)
        ended = _CHANNEL_END.search(text, channel.end(), stop)
        if channel[1].lower() not in _HIDDEN_CHANNELS:
            kept.append(text[channel.end() : ended.start() if ended else stop])
        if ended and ended[0].lower() == "<channel|>":
            kept.append(text[ended.end() : stop])  # Gemma 4 writes the answer behind the channel
    return re.sub(r"<\|start\|>\s{0,2}assistant|<\|(?:end|return)\|>", "", "\n".join(kept)).strip()


def make_visible(text: str) -> str:
    """Write control, invisible and direction characters of `text` as code points."""
    if text.isprintable():  # most texts, and much faster; what is hidden is never printable
        return text
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in HIDDEN else f"\\u{ord(c):04x}"
        for c in text.replace("\r\n", "\n")
    )


def hide_credentials(url: str) -> str:
    """Return a URL without the name and the password in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


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
