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
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial

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
    secrets in the rows are counted in the order of the rows, and others anew in each text.
    """

    def __init__(self, rows: Iterable[str] = (), enabled: bool = True) -> None:
        self._enabled, self._known = enabled, Placeholders()
        for text in rows if enabled else ():
            redact_text(text, self._known)

    def redact(self, text: str) -> str:
        """Return the text without secrets and personal data."""
        return redact_text(text, self._known.fork()) if self._enabled else text


def redact_text(text: str, placeholders: Placeholders) -> str:
    """Replace every secret in `text` by a placeholder. Takes linear time."""
    lower = text.lower()
    rules = (*NAMED_RULES, *PERSONAL_RULES)
    if len(max(text.split(), key=len, default="")) >= MIN_TOKEN_CHARS:
        rules = (*TOKEN_RULES, *NAMED_RULES, *RANDOM_RULES, *PERSONAL_RULES)
    for rule in rules:
        if _may_match(rule, text, lower):
            text = rule.pattern.sub(partial(_replace_match, rule, placeholders), text)
    return text


def find_secrets(text: str) -> dict[str, str]:
    """Return the secrets in `text` with their kinds, also those of DOUBTFUL_RULES."""
    lower = text.lower()
    return {
        get_secret(match): rule.kind
        for rule in (*DOUBTFUL_RULES, *PERSONAL_RULES, *RANDOM_RULES, *NAMED_RULES, *TOKEN_RULES)
        if _may_match(rule, text, lower)
        for match in rule.pattern.finditer(text)
        if rule.holds(match)
    }


def _may_match(rule: SecretRule, text: str, lower: str) -> bool:
    if isinstance(rule.hint, tuple):
        return any(literal in lower for literal in rule.hint)
    return bool(rule.hint(text))


def _replace_match(rule: SecretRule, placeholders: Placeholders, match: Match) -> str:
    if not rule.holds(match):
        return match[0]
    it = get_secret(match)
    at = match.start("it") - match.start() if "it" in match.re.groupindex else 0
    return match[0][:at] + placeholders.get(rule.label, it) + match[0][at + len(it) :]
