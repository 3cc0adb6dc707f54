"""Reject candidates that must not become prompts, before a target call is spent on them.

The guard compares a candidate with the baseline: everything that the author wrote is allowed, and
only new text can be a violation. It is a pure function of texts.

A candidate must not copy three or more consecutive words from a trace. These lengths are remask's
own choice. Of human-written prompts, 0.7 % of the sentences share such an n-gram with ten inputs of
their own task (Natural Instructions, 813 sentences), and 1 % to 5 % with eight of their own
conversations (the two policies of tau-bench).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache

from remask.data.redact.redact import find_secrets
from remask.prompt import STOPS, Prompt, find_frozen_texts, find_sentences
from remask.propose.languages import SMALL_WORDS, find_drift
from remask.propose.structure import hold_like
from remask.sanitize import CHAT_MARK, INVISIBLE, clip, normalise, split_words

_CJK_RUN_LENGTH = 6  # characters in a row, for scripts without spaces
_CJK = re.compile(rf"[\u3040-\u30ff\u3400-\u9fff]{{{_CJK_RUN_LENGTH},}}")

Gram = tuple[str, ...]


def find_ngrams(texts: Iterable[str]) -> frozenset[Gram]:
    """Return the n-grams of untrusted `texts` that a candidate must not copy.

    These are three words of which two are content words, and four words of which one is. Chinese
    and Japanese are written without spaces, so there an n-gram is six characters.
    """
    return frozenset(gram for text in texts for gram in _list_ngrams(text))


def find_violation(
    candidate: Prompt,
    baseline: Prompt,
    untrusted: frozenset[Gram],
    parent: Prompt | None = None,
    max_growth: float = 3.0,
    max_chars: int | None = None,
    answers: Iterable[str] = (),
    labels: Iterable[str] = (),
) -> str:
    """Return why `candidate` must not be tried, in a few words; "" where it may be.

    `untrusted`: `find_ngrams` of the traces that the denoiser read. N-grams of the baseline and of
    `parent` are allowed, since they may agree with other traces by chance. `answers`: allowed
    answers of the task, which a prompt may contain although they look like code (not_spam).
    `labels`: those of the task, whose words may stand side by side, as in a list of labels.
    `max_growth`: limit of its words over those of the baseline; 60 words are always allowed.
    `max_chars`: limit of its characters.
    """
    answers = tuple(answers)
    # Full-width and accented letters must not hide what the patterns look for.
    text, base = fold(candidate.text), fold(baseline.text)
    return (
        _check_size(candidate.text, baseline.text, max_growth, max_chars)
        or _check_marks(candidate.text, baseline.text)
        or _check_frozen(candidate, baseline)
        or _check_marks(text, base)
        or _check_secrets(text, base)
        or _check_copies(text, (baseline, parent or baseline), untrusted)
        or _check_commands(text, base)
        or _check_code(text, "\n".join((base, *answers)))
        or _check_repetition(candidate, baseline, labels)
        or find_drift(candidate, baseline, answers)
        or _check_balance(candidate.text, baseline.text)
        or _check_endings(candidate.text, baseline.text)
    )


def check_length(text: str, count: Callable[[str], int], limit: int | None) -> str:
    """Return the violation of a limit in tokens, as `count` counts them; "" where there is none."""
    if limit is None or (size := count(text)) <= limit:
        return ""
    return f"too long: {size} tokens, {limit} allowed"


def find_demo_violation(text: str) -> str:
    """Return why `text` must not be shown in a prompt as an example; "" where it may be."""
    plain = fold(text)
    return (
        _check_marks(text, "")
        or _check_marks(plain, "")
        or _check_secrets(plain, "")
        or _check_commands(plain, "")
    )


def _check_size(text: str, base: str, max_growth: float, max_chars: int | None) -> str:
    if not any(char.isalpha() for char in text):
        return "empty prompt"
    cap = max(60, round(max_growth * len(_split_words(base))))
    if (size := len(_split_words(text))) > cap:
        return f"too long: {size} words, {cap} allowed"
    if max_chars is not None and len(text) > max_chars:
        return f"too long: {len(text)} characters, {max_chars} allowed"
    return ""


_ROLE = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]*)?(?:system|user|assistant|human|instruction|response)[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)


def _check_marks(text: str, base: str) -> str:
    if new := _find_new(INVISIBLE, text, base):
        return f"invisible or control character U+{ord(new):04X}"
    if new := _find_new(CHAT_MARK, text, base):
        return f"chat mark {new}"
    if new := _find_new(_ROLE, text, base):
        return f"role mark {new.strip()}"
    return ""


def _check_frozen(candidate: Prompt, baseline: Prompt) -> str:
    held = candidate if len(candidate.held) == len(baseline.held) else hold_like(candidate, baseline)
    before, after = find_frozen_texts(baseline), find_frozen_texts(held or candidate)
    if before == after:
        return ""
    if new := list((Counter(after) - Counter(before)).elements()):
        return f"new variable, tag, code or address: {_shorten(new[0])}"
    if gone := list((Counter(before) - Counter(after)).elements()):
        return f"frozen text is gone: {_shorten(gone[0])}"
    return "frozen texts changed their order"


_DOMAIN = re.compile(
    r"\b[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.(?:com|org|net|io|ai|dev|app|co|edu|gov|info|biz|me|xyz|ru"
    r"|cn|de|uk|fr|us|eu|in|jp)\b|\b\d{1,3}(?:\.\d{1,3}){3}\b",
    re.IGNORECASE,
)
_find_secrets = lru_cache(maxsize=256)(find_secrets)


def _check_secrets(text: str, base: str) -> str:
    if new := _find_new(_DOMAIN, text, base):
        return f"new address {_shorten(new)}"
    known = _find_secrets(base)
    kinds = (kind for it, kind in find_secrets(text).items() if it not in known)
    return next((f"looks like a secret: {kind}" for kind in kinds), "")


def _check_copies(text: str, before: Iterable[Prompt], untrusted: frozenset[Gram]) -> str:
    grams = _list_ngrams(text)
    if untrusted.isdisjoint(grams):
        return ""
    own = {gram for prompt in before for gram in _list_ngrams(prompt.text)}
    for gram in grams:
        if gram in untrusted and gram not in own:
            return f"copies a user's words: {_shorten(' '.join(gram))}"
    return ""


_ORDERS = re.compile(
    r"\b(?:ignor|disregard|forget|overrid|bypass|neglect|skip)\w*\W+(?:\w+\W+){0,3}?"
    r"(?:(?:previous|prior|above|earlier|preceding|former|original|system|your|its)\W+(?:\w+\W+)?"
    r"(?:instruction|prompt|rule|guideline|direction|polic)"
    r"|(?:everything|anything|all)\W+(?:above|before|previous|prior|earlier|so far))"
    r"|\b(?:reveal|print|repeat|show|leak|disclose|output)\w*\W+(?:\w+\W+){0,3}?"
    r"(?:your|system|hidden|secret)\W+(?:instruction|prompt|key)s?\b"
    r"|\bnew\W+(?:system\W+)?instructions?\b|\bjailbr\w+|\bprompt injection"
    r"|\b(?:developer|admin|debug|god|dan|root|sudo)\W+mode\b",
    re.IGNORECASE,
)
_SCORING = re.compile(
    r"\b(?:scor(?:e|es|ing)|reward\w*|judge\w*|grade[rs]?|evaluator|rating)\b"
    r"(?:\W+\w+){0,3}?\W+(?:\d+|full|perfect|maxim\w+|highest|top|max|ten)\b"
    r"|\b(?:full|perfect|maxim\w+|highest|top|max)\W+(?:score|reward|rating|grade|mark)s?\b",
    re.IGNORECASE,
)


def _check_commands(text: str, base: str) -> str:
    """Find the usual words of an attack, in case it was reworded and is no exact copy."""
    if new := _find_new(_ORDERS, text, base):
        return f"instruction as in an attack: {_shorten(new)}"
    if not _SCORING.search(base) and (new := _find_new(_SCORING, text, base)):
        return f"talks about its own score: {_shorten(new)}"
    return ""


_CODE = re.compile(
    r"\b\w+\(\)|[=!]==?|&&|\|\||\$[A-Za-z_({]|\\|%[0-9A-Fa-f]{2}\b|\]\(|</|/>|=>"
    r"|\b[a-z]\w*\(\w+=|(?<![\w/.])/\w+/\w|\w=+(?!\S)|^[ \t]*(?:import|def|class|SELECT|curl)\s",
    re.MULTILINE,
)
# Names of tools and variables: snake_case, camelCase, tool.method. iPhone and macOS are words.
_NAME = re.compile(r"\b[A-Za-z]\w*_\w+\b|\b[a-z]{2,}[A-Z][a-z]\w*|\b[a-z]{2,}\.[a-z]{3,}\b")


def _check_code(text: str, base: str) -> str:
    if new := _find_new(_CODE, text, base):
        return f"new code: {_shorten(new.strip())}"
    if new := _find_new(_NAME, text, base):
        return f"new name of a tool or variable: {_shorten(new)}"
    return ""


# Words that English may repeat, as in "the rule that that person broke".
_DOUBLE_OK = frozenset({"that", "had", "so", "very", "bye", "no", "ha"})
_PIECE = re.compile(r"[^.!?:;\n]+")


def _check_repetition(candidate: Prompt, baseline: Prompt, labels: Iterable[str]) -> str:
    listed = {word for label in labels for word in split_words(label)}
    echoes = _find_echoes(candidate.text) - _find_echoes(baseline.text)
    if new := sorted(echo for echo in echoes if not listed.issuperset(echo.split())):
        return f"repeats itself: {_shorten(new[0])}"
    repeated = _find_repeated_sentences(candidate) - _find_repeated_sentences(baseline)
    return f"the same sentence twice: {_shorten(min(repeated))}" if repeated else ""


@lru_cache(maxsize=256)
def _find_echoes(text: str) -> frozenset[str]:
    """Find repetitions: one to three words twice within a clause, or one word three times anywhere.

    Repetitions across clauses are allowed, as in "Classify the sentiment. The sentiment is clear."
    """
    found = set()
    for piece in _PIECE.findall(text):
        inside = split_words(piece)
        for size in (1, 2, 3):
            for i in range(len(inside) - 2 * size + 1):
                run, again = inside[i : i + size], inside[i + size : i + 2 * size]
                if run == again and not (size == 1 and run[0] in _DOUBLE_OK):
                    found.add(" ".join(run + again))
    seen = _split_words(text)
    for i in range(len(seen) - 2):
        if len({*seen[i : i + 3]}) == 1:
            found.add(" ".join(seen[i : i + 3]))
    return frozenset(found)


@lru_cache(maxsize=256)
def _find_repeated_sentences(prompt: Prompt) -> frozenset[str]:
    counts = Counter(" ".join(split_words(prompt.text[a:b])) for a, b in find_sentences(prompt))
    return frozenset(text for text, n in counts.items() if n > 1 and " " in text)


_PAIRS = (("(", ")"), ("[", "]"), ("{", "}"), ("“", "”"), ("«", "»"), ("「", "」"), ("（", "）"))
_LIST_LETTER = re.compile(r"^[ \t]*[A-Za-z\d]{1,3}\)|(?<=\s)[A-Za-z\d]\)(?=\s)|[:;]-?[()]", re.M)


def _check_balance(text: str, base: str) -> str:
    for mark in ('"', "**", "`"):
        if text.count(mark) % 2 and base.count(mark) % 2 == 0:
            return f"unbalanced {mark}"
    left, before = _LIST_LETTER.sub("", text), _LIST_LETTER.sub("", base)
    for opening, closing in _PAIRS:
        if not _is_balanced(left, opening, closing) and _is_balanced(before, opening, closing):
            return f"unbalanced {opening}{closing}"
    return ""


def _is_balanced(text: str, opening: str, closing: str) -> bool:
    depth = 0
    if opening not in text and closing not in text:
        return True
    for char in text:
        depth += (char == opening) - (char == closing)
        if depth < 0:
            return False
    return depth == 0


_LOOSE_END = re.compile(
    r"(?:[,，、(\[{“«&/—–-]|\b(?:and|or|but|the|a|an|of|to|in|for|with|by|from|as|if|that|is|are|"
    r"your|its|their|this|because|than))[\s*_\"”]*$",
    re.IGNORECASE,
)
_COLON_END = re.compile(r"[:：;]\s*$")
_LOOSE_STOP = re.compile(
    r"\b(?:the|a|an|and|or|but|of|your|its|their|with|from|than|because|if)[.!?](?=\s|$)"
)


_DOUBLE_STOP = re.compile(rf"[.!?]\s?[{STOPS}]|[{STOPS}]\s?\.|([。｡।۔።။។])\s?\1|(?<!\.)\.\.(?!\.)")


def _check_endings(text: str, base: str) -> str:
    if new := _find_new(_DOUBLE_STOP, text, base):
        return f"two full stops: {new}"
    if new := _find_new(_LOOSE_STOP, text, base):
        return f"a sentence ends in the middle: {new}"
    for ending in (_LOOSE_END, _COLON_END):
        if ending.search(text) and not ending.search(base):
            return f"ends in the middle: {_shorten(text.strip()[-24:])}"
    return ""


# --- helpers


def _find_new(pattern: re.Pattern[str], text: str, base: str) -> str:
    """Return the first match in `text` that is no match in `base`; "" where there is none."""
    if not pattern.search(text):
        return ""
    known = {match[0] for match in pattern.finditer(base)}
    return next((match[0] for match in pattern.finditer(text) if match[0] not in known), "")


@lru_cache(maxsize=256)
def _split_words(text: str) -> Gram:
    return tuple(split_words(text))


@lru_cache(maxsize=1024)
def fold(text: str) -> str:
    """Return `text` in compatibility form without accents and other combining marks."""
    if text.isascii():
        return text
    parts = unicodedata.normalize("NFKD", normalise(text))
    return unicodedata.normalize("NFC", "".join(c for c in parts if unicodedata.category(c) != "Mn"))


_SMALL = SMALL_WORDS.union(map(fold, SMALL_WORDS)) - {"fur"}  # für


def _list_ngrams(text: str) -> list[Gram]:
    text = fold(text)
    seen = split_words(text)
    grams: list[Gram] = []
    for size, content in ((3, 2), (4, 1)):
        for gram in zip(*(seen[i:] for i in range(size)), strict=False):
            if sum(word not in _SMALL for word in gram) >= content:
                grams.append(gram)
    for run in _CJK.findall(text):
        grams += [(run[i : i + _CJK_RUN_LENGTH],) for i in range(len(run) - _CJK_RUN_LENGTH + 1)]
    return grams


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else clip(text, 38)
