"""Secrets and personal details out of a text, before anything is stored or sent.

Each is replaced by a name, <EMAIL_1>, <KEY_2>: the same secret gets the same name within a run, so
that what a trace says stays readable. What counts as a secret is said by the tables `secrets` and
`personal_data`. Knows nothing of traces and files.

Every pattern passes over the text once, and most are skipped: a pattern runs only where its hint
stands in the text. Names cannot be mistaken for secrets, so redacting twice changes nothing.
"""

import hashlib
import secrets
from collections import Counter
from collections.abc import Mapping
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


class Placeholders:
    """Names for secrets, stable within this object; it holds keyed digests, never a secret.

    The key is random and leaves the process as little as the digests do: a telephone number could
    be guessed from a plain digest.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._names: dict[bytes, str] = {}
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """How many different secrets of each label were named."""
        return dict(self._counts)

    def get(self, label: str, text: str) -> str:
        """<LABEL_n>; spellings that differ in gaps (numbers) or capitals (addresses) share one."""
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


def redact_text(text: str, placeholders: Placeholders) -> str:
    """`text` with a name in place of every secret. Linear in the length of `text`."""
    lower = text.lower()
    long = len(max(text.split(), key=len, default="")) >= MIN_TOKEN_CHARS
    for rules in (
        (TOKEN_RULES, NAMED_RULES, RANDOM_RULES, PERSONAL_RULES)
        if long
        else (NAMED_RULES, PERSONAL_RULES)
    ):
        for rule in rules:
            if _may_match(rule, text, lower):
                text = rule.pattern.sub(partial(_replace_match, rule, placeholders), text)
    return text


def find_secrets(text: str) -> dict[str, str]:
    """What `redact` would hide, and what is only DOUBTFUL, each with its kind."""
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
