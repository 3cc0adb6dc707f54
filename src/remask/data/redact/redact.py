"""Replace secrets and personal data in a text, before it is stored or sent.

Each secret is replaced by a placeholder such as <EMAIL_1> or <KEY_2>. The same secret gets the same
placeholder within a run, so traces stay readable. The rules are in `secrets.py` and
`personal_data.py`.

A pattern is applied only if its hint is in the text, so most patterns are skipped. No pattern
matches a placeholder, so redacting a text twice does not change it.
"""

import hashlib
import re
import secrets
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial

from remask.data.redact.personal_data import PERSONAL_RULES, strip_separators
from remask.data.redact.secrets import (
    DOUBTFUL_RULES,
    MIN_TOKEN_CHARS,
    NAMED_RULES,
    RANDOM_RULES,
    TOKEN_RULES,
    Match,
    SecretRule,
    get_secret,
)

PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*_\d+>")


class Placeholders:
    """The placeholders of secrets. Stores keyed digests, never a secret.

    The key is random and never stored, because a telephone number could be guessed from a plain
    digest.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._names: dict[bytes, str] = {}
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of distinct secrets by label."""
        return dict(self._counts)

    def fork(self) -> "Placeholders":
        """Return placeholders that know the same secrets, and do not tell what they learn."""
        fork = Placeholders()
        fork._key, fork._names, fork._counts = self._key, dict(self._names), Counter(self._counts)
        return fork

    def get(self, label: str, text: str) -> str:
        """Return <LABEL_n>. Spacing of numbers and case of addresses do not matter."""
        match label:
            case "PHONE" | "CARD" | "IBAN":
                same = strip_separators(text)
            case "EMAIL" | "IP":
                same = text.casefold()
            case _:
                same = text
        blob = f"{label} {same}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(blob, key=self._key, digest_size=16).digest()
        if digest not in self._names:
            self._counts[label] += 1
            self._names[digest] = f"<{label}_{self._counts[label]}>"
        return self._names[digest]


class Redactor:
    """Redacts the texts of a run. What it returns depends only on `rows` and on the text.

    So a resumed run, which meets the texts in another order, gets the same placeholders: those of
    secrets in the rows are counted in the order of the rows, and others from 1 in each text.
    """

    def __init__(self, rows: Iterable[str] = (), enabled: bool = True) -> None:
        self._enabled, self._known = enabled, Placeholders()
        for text in rows if enabled else ():
            redact_text(text, self._known)

    def redact(self, text: str) -> str:
        """Return the text without secrets and personal data."""
        return redact_text(text, self._known.fork()) if self._enabled else text


def redact_text(text: str, placeholders: Placeholders) -> str:
    """Replace every secret in `text` by a placeholder. Takes linear time.

    The patterns read a plain view of the text, so that a zero-width character inside of a key, or
    a full-width @, hides nothing.
    """
    view, places = make_plain_view(text)
    lower = view.lower()
    if places is not None:
        return _redact_view(text, view, places, lower, placeholders)
    for rule in _choose_rules(text):
        if _may_match(rule, text, lower):
            text = rule.pattern.sub(partial(_replace_match, rule, placeholders), text)
    return text


def _choose_rules(text: str) -> tuple[SecretRule, ...]:
    """Return the rules in their order, without those for tokens longer than all of the text's."""
    rules = (*NAMED_RULES, *PERSONAL_RULES)
    if len(max(text.split(), key=len, default="")) >= MIN_TOKEN_CHARS:
        rules = (*TOKEN_RULES, *NAMED_RULES, *RANDOM_RULES, *PERSONAL_RULES)
    return rules


def _redact_view(text: str, view: str, places: list[int], lower: str, placeholders: Placeholders) -> str:
    """Redact `text` where its plain view has a secret. `places`: of each character of the view."""
    for rule in _choose_rules(view):
        if not _may_match(rule, view, lower):
            continue
        texts, views, kept, at, size = [], [], [], 0, 0  # the new text so far, and its size
        for match in rule.pattern.finditer(view):
            start, stop = match.span("it" if "it" in match.re.groupindex else 0)
            if start == stop or not rule.holds(match):
                continue
            name = placeholders.get(rule.label, view[start:stop])
            begin = places[at - 1] + 1 if at else 0  # in the text; at is in the view
            texts += [text[begin : places[start]], name]
            views += [view[at:start], name]
            kept += [size + place - begin for place in places[at:start]]
            size += places[start] - begin
            kept += range(size, size + len(name))
            size, at = size + len(name), stop
        if at:
            begin = places[at - 1] + 1
            kept += [size + place - begin for place in places[at:]]
            text = "".join(texts) + text[begin:]
            view, places = "".join(views) + view[at:], kept
    return text


_DASHES = dict.fromkeys("‐‑‒–—―−﹘﹣－", "-")


def make_plain_view(text: str) -> tuple[str, list[int] | None]:
    """Return `text` with plain letters, digits and dashes, without invisible characters.

    Also returns the place of each of its characters in `text`; None where nothing differs.
    """
    odd = "".join(char for char in sorted(set(text)) if _plain_char(char) != char)
    if not odd:
        return text, None
    view: list[str] = []
    places: list[int] = []
    at = 0
    for match in re.finditer(f"[{re.escape(odd)}]", text):
        place = match.start()
        plain = _plain_char(match[0])
        view += [text[at:place], plain]
        places += range(at, place + len(plain))
        at = place + 1
    places += range(at, len(text))
    return "".join(view) + text[at:], places


@lru_cache(maxsize=4096)
def _plain_char(char: str) -> str:
    """Return the ASCII form of a full-width or styled character, a digit or a dash, else itself.

    A control or format character, such as a zero-width space, gives "".
    """
    if " " <= char <= "~":
        return char
    if char in "\t\r\n" or char in _DASHES:
        return _DASHES.get(char, char)
    if unicodedata.category(char) in ("Cc", "Cf") or char in _FILLERS:
        return ""
    digit = unicodedata.decimal(char, None)
    form = unicodedata.normalize("NFKC", char) if digit is None else str(digit)
    return form if len(form) == 1 and form.isascii() and char not in _EXPONENTS else char


_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufe0e\ufe0f")
_EXPONENTS = frozenset("ªº²³¹⁰ⁱ⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿ₀₁₂₃₄₅₆₇₈₉")


def find_secrets(text: str) -> dict[str, str]:
    """Return the secrets in the plain view of `text` with their kinds, also doubtful ones."""
    text, _ = make_plain_view(text)
    lower = text.lower()
    return {
        get_secret(match): rule.kind
        for rule in (*DOUBTFUL_RULES, *PERSONAL_RULES, *RANDOM_RULES, *NAMED_RULES, *TOKEN_RULES)
        if _may_match(rule, text, lower)
        for match in rule.pattern.finditer(text)
        if rule.holds(match)
    }


def _may_match(rule: SecretRule, text: str, lower: str) -> bool:
    if not isinstance(rule.hint, tuple):
        return bool(rule.hint(text))
    for literal in rule.hint:  # noqa: SIM110 -- `any` takes three times as long, for each rule and text
        if literal in lower:
            return True
    return False


def _replace_match(rule: SecretRule, placeholders: Placeholders, match: Match) -> str:
    if not rule.holds(match):
        return match[0]
    it = get_secret(match)
    at = match.start("it") - match.start() if "it" in match.re.groupindex else 0
    return match[0][:at] + placeholders.get(rule.label, it) + match[0][at + len(it) :]
