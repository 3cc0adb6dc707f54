"""What may never enter a prompt; asked before a target call is spent.

Compares a candidate with the baseline: everything the author wrote is allowed, only what is new
can be wrong. Pure and fast. Knows nothing of traces, models, scores or the search.

The lengths of forbidden runs are our own choice. Of human-written prompts, 0.7 % of the sentences
share such a run with ten inputs of their own task (Natural Instructions, 813 sentences), and 1 % to
5 % with eight conversations held under them (the two policies of tau-bench).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache

from remask.data.redact.redact import find_secrets
from remask.prompt import Prompt, frozen_texts, sentences
from remask.sanitize import CHAT_MARK, INVISIBLE, clip, words

_CJK_RUN = 6  # characters in a row, for scripts without spaces
_CJK = re.compile(rf"[\u3040-\u30ff\u3400-\u9fff]{{{_CJK_RUN},}}")

Gram = tuple[str, ...]

# Words that carry grammar rather than content: they tell languages apart, and a run of them alone
# is nobody's.
_LANGUAGES = {
    "english": "the of and to a an in is are be been was were it its this that these those for with"
    " from by on at as or but if not you your they their there have has had do does did will would"
    " can could should may must what which who how when where so than then all any some i me my we"
    " our us he she his her no up out about into over only also just more most very",
    "german": "der das dem des und nicht ist sie mit ein eine einen einer für auf zu zum zur von"
    " im sich werden wird sind oder aber wenn dass ich du wir ihr ihre alle nur noch auch nach aus",
    "french": "le la les des du une et est pas que qui pour dans vous avec sur ce cette ces ou"
    " mais si il elle ils nous votre vos toutes tous sont être ne aux par",
    "spanish": "el la los las una de en es no que para por del al su sus lo se como más pero si"
    " está son todas todos este esta estas usted",
    "italian": "il la lo gli le una è non che di con del della delle dei al alla sono"
    " più ma se tutte tutti questo questa nel",
    "portuguese": "os um uma é não que de para com por do da dos das ao seu sua como mais mas"
    " são todas todos este esta você",
    "dutch": "de het een en niet is zijn voor op te dat deze aan als ook maar worden je"
    " jij uw alle bij naar om",
}
_FUNCTION_WORDS = {name: frozenset(text.split()) for name, text in _LANGUAGES.items()}
_SMALL = frozenset().union(*_FUNCTION_WORDS.values())


def ngrams(texts: Iterable[str]) -> frozenset[Gram]:
    """The runs of words of untrusted `texts` that must not travel into a prompt: three words of
    which two carry content, four of which one does.

    Chinese and Japanese are written without spaces; there a run is six characters.
    """
    return frozenset(gram for text in texts for gram in _grams(text))


def violation(
    candidate: Prompt,
    baseline: Prompt,
    untrusted: frozenset[Gram],
    parent: Prompt | None = None,
    max_growth: float = 3.0,
    max_chars: int | None = None,
    answers: Iterable[str] = (),
) -> str:
    """Why `candidate` must not be tried, in a few words; "" if nothing speaks against it.

    `untrusted` is `ngrams` of what was read to write it; the words of its `parent` were there
    before, and may meet other traces by chance. The `answers` that the task allows may be named,
    though they look like code (not_spam). The prompt may grow to `max_growth` times the words of
    the baseline (60 words are always allowed) and to `max_chars` characters.
    """
    return (
        _size(candidate.text, baseline.text, max_growth, max_chars)
        or _marks(candidate.text, baseline.text)
        or _frozen(candidate, baseline)
        or _secrets(candidate.text, baseline.text)
        or _copied(candidate.text, (baseline, parent or baseline), untrusted)
        or _commands(candidate.text, baseline.text)
        or _code(candidate.text, "\n".join((baseline.text, *answers)))
        or _repeated(candidate, baseline)
        or _foreign(candidate.text, baseline.text)
        or _unbalanced(candidate.text, baseline.text)
        or _cut(candidate.text, baseline.text)
    )


def too_long(text: str, count: Callable[[str], int], limit: int | None) -> str:
    """The same for a limit of tokens, as `count` counts them."""
    if limit is None or (size := count(text)) <= limit:
        return ""
    return f"too long: {size} tokens, {limit} allowed"


def unfit(text: str) -> str:
    """Why `text` must not be shown in a prompt as an example; "" if nothing speaks against it."""
    return _marks(text, "") or _secrets(text, "") or _commands(text, "")


def _size(text: str, base: str, max_growth: float, max_chars: int | None) -> str:
    if not any(char.isalpha() for char in text):
        return "empty prompt"
    cap = max(60, round(max_growth * len(_words(base))))
    if (size := len(_words(text))) > cap:
        return f"too long: {size} words, {cap} allowed"
    if max_chars is not None and len(text) > max_chars:
        return f"too long: {len(text)} characters, {max_chars} allowed"
    return ""


_ROLE = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]*)?(?:system|user|assistant|human|instruction|response)[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)


def _marks(text: str, base: str) -> str:
    if new := _new(INVISIBLE, text, base):
        return f"invisible or control character U+{ord(new):04X}"
    if new := _new(CHAT_MARK, text, base):
        return f"chat mark {new}"
    if new := _new(_ROLE, text, base):
        return f"role mark {new.strip()}"
    return ""


def _frozen(candidate: Prompt, baseline: Prompt) -> str:
    before, after = frozen_texts(baseline), frozen_texts(candidate)
    if before == after:
        return ""
    if new := list((Counter(after) - Counter(before)).elements()):
        return f"new variable, tag, code or address: {_short(new[0])}"
    if gone := list((Counter(before) - Counter(after)).elements()):
        return f"frozen text is gone: {_short(gone[0])}"
    return "frozen texts changed their order"


_DOMAIN = re.compile(
    r"\b[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.(?:com|org|net|io|ai|dev|app|co|edu|gov|info|biz|me|xyz|ru"
    r"|cn|de|uk|fr|us|eu|in|jp)\b|\b\d{1,3}(?:\.\d{1,3}){3}\b",
    re.IGNORECASE,
)
_secrets_in = lru_cache(maxsize=256)(find_secrets)


def _secrets(text: str, base: str) -> str:
    if new := _new(_DOMAIN, text, base):
        return f"new address {_short(new)}"
    known = _secrets_in(base)
    kinds = (kind for it, kind in find_secrets(text).items() if it not in known)
    return next((f"looks like a secret: {kind}" for kind in kinds), "")


def _copied(text: str, before: Iterable[Prompt], untrusted: frozenset[Gram]) -> str:
    grams = _grams(text)
    if untrusted.isdisjoint(grams):
        return ""
    own = {gram for prompt in before for gram in _grams(prompt.text)}
    for gram in grams:
        if gram in untrusted and gram not in own:
            return f"copies a user's words: {_short(' '.join(gram))}"
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


def _commands(text: str, base: str) -> str:
    """The usual words of an attack, in case it comes reworded."""
    if new := _new(_ORDERS, text, base):
        return f"speaks to the model as an attack does: {_short(new)}"
    if not _SCORING.search(base) and (new := _new(_SCORING, text, base)):
        return f"speaks of its own score: {_short(new)}"
    return ""


_CODE = re.compile(
    r"\b\w+\(\)|[=!]==?|&&|\|\||\$[A-Za-z_({]|\\|%[0-9A-Fa-f]{2}\b|\]\(|</|/>|=>"
    r"|\b[a-z]\w*\(\w+=|(?<![\w/.])/\w+/\w|\w=+(?!\S)|^[ \t]*(?:import|def|class|SELECT|curl)\s",
    re.MULTILINE,
)
# Names of tools and variables: snake_case, camelCase (iPhone and macOS are words), tool.method.
_NAME = re.compile(r"\b[A-Za-z]\w*_\w+\b|\b[a-z]{2,}[A-Z][a-z]\w*|\b[a-z]{2,}\.[a-z]{3,}\b")


def _code(text: str, base: str) -> str:
    if new := _new(_CODE, text, base):
        return f"new code: {_short(new.strip())}"
    if new := _new(_NAME, text, base):
        return f"new name of a tool or variable: {_short(new)}"
    return ""


_DOUBLE_OK = frozenset({"that", "had", "so", "very", "bye", "no", "ha"})  # "the rule that that …"
_PIECE = re.compile(r"[^.!?:;\n]+")


def _repeated(candidate: Prompt, baseline: Prompt) -> str:
    if new := sorted(_echoes(candidate.text) - _echoes(baseline.text)):
        return f"repeats itself: {_short(new[0])}"
    twice = _twice(candidate) - _twice(baseline)
    return f"the same sentence twice: {_short(min(twice))}" if twice else ""


@lru_cache(maxsize=256)
def _echoes(text: str) -> frozenset[str]:
    """Runs of one to three words twice within a clause, and of one word three times anywhere. Not
    across clauses: "Classify the sentiment. The sentiment is …" only goes on."""
    found = set()
    for piece in _PIECE.findall(text):
        inside = words(piece)
        for size in (1, 2, 3):
            for i in range(len(inside) - 2 * size + 1):
                run, again = inside[i : i + size], inside[i + size : i + 2 * size]
                if run == again and not (size == 1 and run[0] in _DOUBLE_OK):
                    found.add(" ".join(run + again))
    seen = _words(text)
    for i in range(len(seen) - 2):
        if len({*seen[i : i + 3]}) == 1:
            found.add(" ".join(seen[i : i + 3]))
    return frozenset(found)


@lru_cache(maxsize=256)
def _twice(prompt: Prompt) -> frozenset[str]:
    counts = Counter(" ".join(words(prompt.text[a:b])) for a, b in sentences(prompt))
    return frozenset(text for text, n in counts.items() if n > 1 and " " in text)


def _foreign(text: str, base: str) -> str:
    known = _scripts(base)
    if not known.isdisjoint(_JAPANESE[:2]):
        known = known.union(_JAPANESE)
    if new := _scripts(text) - known:
        return f"letters of another script: {min(new).lower()}"
    return _language(frozenset(_words(text)), frozenset(_words(base)))


def _language(seen: frozenset[str], before: frozenset[str]) -> str:
    """Two new function words that only another language than the baseline's has."""
    counts = {name: len(small & before) for name, small in _FUNCTION_WORDS.items()}
    most = max(counts.values())
    if not most:
        return ""
    own = {name for name, count in counts.items() if count == most}
    known = before.union(*(_FUNCTION_WORDS[name] for name in own))
    for name, small in _FUNCTION_WORDS.items():
        if name not in own and len(new := (small & seen) - known) > 1:
            return f"another language: {name} ({', '.join(sorted(new)[:3])})"
    return ""


@lru_cache(maxsize=256)
def _scripts(text: str) -> frozenset[str]:
    letters = {char for char in text if char.isalpha()}
    names = (unicodedata.name(char, "UNKNOWN") for char in letters if not char.isascii())
    scripts = {_SCRIPT.get(first, first) for name in names if (first := name.split()[0])}
    return frozenset(scripts | {"LATIN"})  # Latin words stand in prompts of every language


_JAPANESE = ("HIRAGANA", "KATAKANA", "CJK")  # where one of the first two stands, all three may

# First words of Unicode names that stand for no script of their own.
_SCRIPT = {
    "FULLWIDTH": "LATIN",
    "FEMININE": "LATIN",
    "MASCULINE": "LATIN",
    "MICRO": "LATIN",
    "KATAKANA-HIRAGANA": "KATAKANA",
    "HALFWIDTH": "KATAKANA",
    "IDEOGRAPHIC": "CJK",
    "MODIFIER": "LATIN",
}

_PAIRS = (("(", ")"), ("[", "]"), ("{", "}"), ("“", "”"), ("«", "»"), ("「", "」"), ("（", "）"))
_LIST_LETTER = re.compile(r"^[ \t]*[A-Za-z\d]{1,3}\)|(?<=\s)[A-Za-z\d]\)(?=\s)|[:;]-?[()]", re.M)


def _unbalanced(text: str, base: str) -> str:
    for mark in ('"', "**", "`"):
        if text.count(mark) % 2 and base.count(mark) % 2 == 0:
            return f"unbalanced {mark}"
    left, before = _LIST_LETTER.sub("", text), _LIST_LETTER.sub("", base)
    for opening, closing in _PAIRS:
        if not _balanced(left, opening, closing) and _balanced(before, opening, closing):
            return f"unbalanced {opening}{closing}"
    return ""


def _balanced(text: str, opening: str, closing: str) -> bool:
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


def _cut(text: str, base: str) -> str:
    if new := _new(_LOOSE_STOP, text, base):
        return f"a sentence ends in the middle: {new}"
    for ending in (_LOOSE_END, _COLON_END):
        if ending.search(text) and not ending.search(base):
            return f"ends in the middle: {_short(text.strip()[-24:])}"
    return ""


# --- small things


def _new(pattern: re.Pattern[str], text: str, base: str) -> str:
    """The first match in `text` that is no match in `base`."""
    if not pattern.search(text):
        return ""
    known = {match[0] for match in pattern.finditer(base)}
    return next((match[0] for match in pattern.finditer(text) if match[0] not in known), "")


@lru_cache(maxsize=256)
def _words(text: str) -> Gram:
    return tuple(words(text))


def _grams(text: str) -> list[Gram]:
    seen = words(text)
    grams: list[Gram] = []
    for size, content in ((3, 2), (4, 1)):
        for gram in zip(*(seen[i:] for i in range(size)), strict=False):
            if sum(word not in _SMALL for word in gram) >= content:
                grams.append(gram)
    for run in _CJK.findall(text):
        grams += [(run[i : i + _CJK_RUN],) for i in range(len(run) - _CJK_RUN + 1)]
    return grams


def _short(text: str) -> str:
    return text if len(text) <= 40 else clip(text, 38)
