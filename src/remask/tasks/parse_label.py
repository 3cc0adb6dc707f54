"""Find the label that a response gives as its answer.

Labels match as whole words, in compatibility forms (NFKC) and any case; hyphens, apostrophes and
digits of all kinds are equal. Between two words, spaces, underscores and hyphens are the same, and
NotSpam may be written as two words. Numbers match by their value, single letters only as they are
written. Negation is not understood: "not positive" gives the label "positive".
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from remask.sanitize import normalise

# A letter or digit that must not be next to a label: "positive" is not in "positively". Scripts
# without spaces between words are excluded: Thai, Lao, Burmese, Khmer, kana, Han, and Hangul with
# its particles.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = rf"[^\W{_UNSPACED}]"
_LETTER = rf"[^\W_{_UNSPACED}]"
_NUMBER = rf"(?<!\d[.,])(?<!{_WORD})[+-]?\d+(?:[.,]\d+)*(?![.,]\d)(?!{_WORD})"
MAX_JSON_OBJECTS = 50  # that are tried in one response
MAX_MARK_CHARS = 120  # before a label, in which a word such as "answer" may stand

# Keys of an answer in JSON, the most explicit first, and those of reasons.
_ANSWER_KEYS = (
    *("finalanswer", "answer", "label", "predictedlabel", "category", "class", "classification", "sentiment"),
    *("prediction", "verdict", "choice", "option", "intent", "topic", "output", "result", "rating", "score"),
    *("value", "response", "antwort", "respuesta", "réponse", "resposta", "risposta", "答案", "标签", "回答"),
)
_REASONS = """\
reason reasons reasoning explanation rationale thought thoughts thinking analysis comment justification
evidence why confidence question input text"""
_REASON_KEYS = frozenset(_REASONS.split())

_NAMES = (
    r"answers?|labels?|antwort|respuesta|réponse|resposta|risposta|antwoord|odpowiedź|ответ|cevap|svar|答案|标签|標籤|回答"
    r"|答え|正解|정답|답|उत्तर|الإجابة|الجواب"
)
_OTHER_NAMES = (
    r"categor(?:y|ies)|class(?:ification)?|sentiment|verdict|choice|option|prediction|intent|topic|rating|score"
    r"|result|output|conclusion|kategorie|categoría|catégorie|categoria|类别|分类|情感|结果|分類|カテゴリ|категория|boxed"
)
_VERB = (
    r"\b(?:is|was|be|are|remains|becomes|ist|lautet|wäre|es|est|é|è|jest|är|er|это|olmalıdır)\b:?"
    r"(?:\s+(?:therefore|thus|clearly|definitely|probably|most|likely|simply|also|the|option|choice|label|category"
    r"|class|letter|number|as|follows))*:?"
)
_OPENING = r"[\s\"'*_`(\[“‘«「『<{$\\|]*(?:(?:text|mathrm|textbf|boxed)\{)?[\s\"'*_`(\[]*"
_LINK = rf"(?:[:=：>→]|->|{_VERB}|[是为為はが은는이가])"


def _mark(names: str) -> re.Pattern[str]:
    """Compile a text that ends where an answer begins: "the answer, I think, is ", "label: "."""
    head = rf"(?<!{_LETTER})(?:{names})(?!{_LETTER})"
    return re.compile(
        rf"{head}(?:[^\n.!?:：。]{{0,60}}?{_LINK}|[\"'*_`\s{{]{{1,6}}){_OPENING}\Z", re.IGNORECASE
    )


_FINAL_MARK = _mark(rf"final(?:ly)?[\s_-]+(?:{_NAMES}|{_OTHER_NAMES})|最终答案|最終答案")
_ANSWER_MARK = _mark(_NAMES)
_OTHER_MARK = _mark(_OTHER_NAMES)
_CONCLUSION_MARK = _mark(
    r"therefore|thus|hence|overall|in (?:conclusion|summary|short)|all in all|daher|insgesamt"
    r"|donc|por (?:lo )?tanto|portanto|quindi|dlatego|поэтому|итак"
    r"|因此|所以|总之|综上|したがって|よって|따라서"
)
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
# What may stand around a label on a line of its own: "#### negative", "> **B**", "(C).".
_AROUND = " \t\r#>*_~`\"'“”«»「」『』()[]{}<|$\\.,:;!?。、"

# Characters that show nothing or only stretch a word, and characters that are written for others.
_UNSEEN = re.compile(r"[\u00ad\u034f\u061c\u0640\u200b-\u200f\u2060-\u2064\ufeff]")
_HYPHENS = re.compile(r"[\u2010-\u2013\u2212]")
_APOSTROPHES = re.compile(r"[\u2018\u2019\u201b\u02bc]")
_CAMEL = re.compile(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])")
_WORD_HYPHEN = re.compile(r"(?<=[^\W\d])-(?=[^\W\d])")

# The ends of a scale, as in "from 1 to 5" and "4 out of 5": no answers where another label is named.
_SCALE = re.compile(
    r"(?<![\w.,])(?:\d+(?:[.,]\d+)?|[A-Za-z])\s?(?:-|–|—|~|\.\.+|…|to|through|bis|à|至|到)\s?"
    r"(?:\d+(?:[.,]\d+)?|[A-Za-z])(?!\w)"
    r"|(?<=\d)\s?(?:/|out of|von|sur)\s?\d+(?:[.,]\d+)?(?!\w)"
)
_ARTICLE = re.compile(r"[AIaO]\s+[^\W\d_]*[a-z]")  # "A good film" names no label A


@dataclass(frozen=True, slots=True)
class _Named:
    """A place in a response that names a label."""

    start: int
    stop: int
    label: str


def parse_label(text: str, labels: Sequence[str]) -> str | None:
    """Return the label that `text` answers with, or None.

    A text that is only a label gives it. Otherwise the answer in JSON counts; then the last label
    behind a word such as "answer" or "label"; then a first or a last line that is only a label; then
    the only label in bold, and the last one behind a word such as "therefore"; then the first label,
    the longest where several begin there.
    """
    if whole := match_label(text, labels):
        return whole
    folded = _fold(text)
    known, answer = _read_json_answer(folded, labels)
    if known:
        return answer
    named = _list_named(folded, labels)
    scales = [match.span() for match in _SCALE.finditer(folded)]
    outside = [n for n in named if not any(a <= n.start and n.stop <= b for a, b in scales)]
    for mark in (_FINAL_MARK, _ANSWER_MARK, _OTHER_MARK):
        for place in reversed(outside):
            if mark.search(folded, max(0, place.start - MAX_MARK_CHARS), place.start):
                return place.label
    if label := _find_alone(folded, labels):
        return label
    for place in reversed(outside):
        if _CONCLUSION_MARK.search(folded, max(0, place.start - MAX_MARK_CHARS), place.start):
            return place.label
    clear = [n for n in outside if n.stop - n.start > 1 or not _ARTICLE.match(folded, n.start)]
    return next((place.label for place in (*clear, *outside, *named)), None)


def match_label(text: str, labels: Sequence[str]) -> str | None:
    """Return the label that `text` is, up to form, case, white space, underscores; or its number."""
    wanted = normalise_label(text)
    same = [label for label in labels if normalise_label(label) == wanted]
    if same:  # of "x-ray" and "x ray" the one that is written
        written = " ".join(_fold(text).replace("_", " ").split()).casefold()
        return next((label for label in same if _fold(label).casefold() == written), same[0])
    joined = wanted.replace(" ", "")
    for label in labels:  # "not spam" for NotSpam, and NotSpam for "not spam"
        words = normalise_label(_CAMEL.sub(" ", label))
        if " " in words and words.replace(" ", "") == joined:
            return label
    number = read_number(wanted)
    if number is None:
        return None
    return next((label for label in labels if read_number(normalise_label(label)) == number), None)


def equals_label(one: str | None, other: str | None) -> bool:
    """Return whether two labels are the same, such as "1" and "1.0"."""
    return one is not None and other is not None and match_label(one, [other]) is not None


@lru_cache(maxsize=4096)
def normalise_label(label: str) -> str:
    """Return the label in one form, one case, with single spaces between words."""
    spaced = _WORD_HYPHEN.sub(" ", _fold(label)).replace("_", " ").replace("%", " %")
    return " ".join(spaced.split()).casefold()


def _fold(text: str) -> str:
    """Return the text in NFKC with one kind of hyphen, apostrophe and digit, without unseen characters."""
    if text.isascii():
        return text
    text = _HYPHENS.sub("-", _APOSTROPHES.sub("'", _UNSEEN.sub("", normalise(text))))
    return "".join(str(unicodedata.decimal(char, char)) for char in text)


def _find_alone(text: str, labels: Sequence[str]) -> str | None:
    """Return the label that is the first line, else the last line, else the only one in bold."""
    lines = [line for line in text.splitlines() if line.strip()]
    for line in (lines[0], lines[-1]) if len(lines) > 1 else ():
        if label := match_label(line, labels) or match_label(line.strip(_AROUND), labels):
            return label
    bold = {match_label(found.strip(_AROUND), labels) for found in _BOLD.findall(text)} - {None}
    return bold.pop() if len(bold) == 1 else None


def read_number(text: str) -> Decimal | None:
    """Return the value of a number such as 1, 1.0, 1,5 or 1,000; None for other text and for 007."""
    if not re.fullmatch(r"[+-]?(?:0|[1-9]\d*|[1-9]\d{0,2}(?:,\d{3})+)(?:[.,]\d+)?", text, re.ASCII):
        return None
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", text):
        text = text.replace(",", "")
    return Decimal(text.replace(",", "."))


def _list_named(text: str, labels: Sequence[str]) -> list[_Named]:
    """Return the places that name labels, in order."""
    if not labels:
        return []
    ordered = tuple(sorted(set(labels), key=lambda label: (-len(label), label)))
    numbers = {n: label for label in ordered if (n := read_number(normalise_label(label))) is not None}
    signed = any(number < 0 for number in numbers)
    found = []
    for match in _compile_labels(ordered).finditer(text):
        start, stop = match.span()
        if match.lastindex == len(ordered) + 1:
            value = read_number(match[0] if signed else match[0].lstrip("+-"))
            if value is not None and value in numbers:
                found.append(_Named(start, stop, numbers[value]))
        elif match.lastindex:
            found.append(_Named(start, stop, ordered[match.lastindex - 1]))
    return found


@lru_cache(maxsize=32)
def _compile_labels(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Compile a pattern with one group per label, in the given order, and one for other numbers."""
    forms = [_make_label_pattern(_fold(label), labels) for label in labels]
    if any(read_number(normalise_label(label)) is not None for label in labels):
        forms.append(f"({_NUMBER})")
    return re.compile("|".join(forms), re.IGNORECASE)


def _make_label_pattern(label: str, labels: Sequence[str]) -> str:
    others = [other for other in labels if normalise_label(other) == normalise_label(label)]
    spaced = label if len(others) > 1 else _WORD_HYPHEN.sub(" ", label)
    words = spaced.replace("_", " ").split() or [label]
    joined = (r"[\s_\-]*".join(map(re.escape, _CAMEL.split(word))) for word in words)
    body = r"[\s_\-]+".join(joined).replace("%", r"\s?%")
    if len(label) == 1 and label.isalpha():
        body = f"(?-i:{body})"
    # A decimal is one number: "4" is not in "4.5" nor in "3.4".
    before = r"(?<!\d[.,])" if words[0][0].isdigit() else ""
    after = r"(?![.,]\d)" if words[-1][-1].isdigit() else ""
    if re.match(_WORD, words[0][0]):
        before += f"(?<!{_WORD})"
    if re.match(_WORD, words[-1][-1]):
        after += f"(?!{_WORD})"
    return f"{before}({body}){after}"


# --- answers in JSON


def _read_json_answer(text: str, labels: Sequence[str]) -> tuple[bool, str | None]:
    """Return whether `text` has an answer in JSON, and its label; the last object counts."""
    for found in reversed(list(find_objects(text))):
        values = dict(_list_values(found))
        for key in _ANSWER_KEYS:
            if key in values:
                said = values[key]
                return True, match_label(said, labels) or parse_label(said, labels)
        others = [match_label(v, labels) for key, v in values.items() if key not in _REASON_KEYS]
        named = {label for label in others if label}
        if len(named) == 1:
            return True, named.pop()
    return False, None


def find_objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a text, without those inside of others."""
    at = 0
    for _ in range(MAX_JSON_OBJECTS):
        at = text.find("{", at)
        if at < 0:
            return
        try:
            found, at = json.JSONDecoder().raw_decode(text, at)
        except (ValueError, RecursionError):
            found, at = None, at + 1
        if isinstance(found, dict):
            yield found


def _list_values(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield keys in one form with their single values as text; outer keys come last, so they win."""
    for value in found.values():
        if isinstance(value, dict):
            yield from _list_values(value)
    for key, value in found.items():
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value is not None and not isinstance(value, dict | list):
            said = value if isinstance(value, str) else json.dumps(value)
            yield re.sub(r"[\W_]+", "", key).casefold(), said
