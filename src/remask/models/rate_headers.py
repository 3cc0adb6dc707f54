"""What a server says about its limits in the headers of an answer: how long to wait, what is left.

Servers are not trusted to be sane: a value that cannot be is left out, and what is read is a hint.
"""

import email.utils
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Unit = Literal["requests", "tokens"]
MAX_RESET_SECONDS = 86_400.0
_FAMILY = re.compile(
    r"(?:x-ratelimit-(?P<field>limit|remaining|reset)-(?P<unit>requests|tokens))"
    r"|(?:anthropic-ratelimit-(?P<unit_a>requests|tokens)-(?P<field_a>limit|remaining|reset))"
    r"|(?:(?:x-)?ratelimit-(?P<field_w>limit|remaining|reset))"
)
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|d|h|m|s))")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_MEMBER = re.compile(r";\s*([rt])=(\d{1,15})(?=\s*(?:;|,|$))")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may still be sent. `reset`: seconds until all of it is back."""

    unit: Unit
    remaining: float
    reset: float
    limit: float | None  # None: unknown
    refills: bool  # whether it comes back little by little, and not all at once

    @property
    def rate(self) -> float | None:
        """What comes back in a second where it refills; None where that cannot be told."""
        if not self.refills or self.limit is None or self.reset <= 0 or self.remaining >= self.limit:
            return None
        return (self.limit - self.remaining) / self.reset


def parse_allowances(headers: Mapping[str, str], now: float) -> list[Allowance]:
    """Return what is left of requests and of tokens, as far as the headers say. `now`: since 1970.

    They are those of OpenAI and of servers like it (x-ratelimit-remaining-requests, with a time such
    as 6m0s until all is back), of Anthropic (with a date) and of the draft of the IETF, in its old
    form (RateLimit-Remaining, RateLimit-Reset) and its new one (RateLimit: "name";r=50;t=30).
    """
    found: dict[tuple[Unit, bool], dict[str, str]] = {}
    for name, value in headers.items():
        name = name.lower()
        if "ratelimit" not in name:
            continue
        if name == "ratelimit":
            found[("requests", False)] = _read_member(value)
        elif match := _FAMILY.fullmatch(name):
            part = match.groupdict()
            unit: Unit = "tokens" if "tokens" in (part["unit"], part["unit_a"]) else "requests"
            key = part["field"] or part["field_a"] or part["field_w"]
            found.setdefault((unit, not part["field_w"]), {}).setdefault(key, value)
    return list(_make_allowances(found, now))


def _make_allowances(found: Mapping[tuple[Unit, bool], Mapping[str, str]], now: float) -> Iterator[Allowance]:
    for (unit, refills), values in found.items():
        remaining = _parse_number(values.get("remaining", ""))
        reset = _parse_reset(values.get("reset", ""), now)
        limit = _parse_number(values.get("limit", ""))
        if remaining is not None and reset is not None and (limit is None or remaining <= limit):
            yield Allowance(unit, remaining, reset, limit, refills)


def _read_member(value: str) -> dict[str, str]:
    """Read `"name";r=50;t=30`; of several policies the one with the least left."""
    members = [dict(_MEMBER.findall(part)) for part in value[:1000].split(",")]
    known = [member for member in members if {"r", "t"} <= member.keys()]
    if not known:
        return {}
    least = min(known, key=lambda member: int(member["r"]))
    return {"remaining": least["r"], "reset": least["t"]}


def _parse_reset(value: str, now: float) -> float | None:
    """Parse a time until all is back: 30, 6m0s, 12ms, a date of RFC 3339, or seconds since 1970."""
    value = value.strip()[:64]
    seconds = _parse_number(value)
    if seconds is not None and seconds > 1e9:
        seconds -= now
    if seconds is None and value and not _DURATION.sub("", value):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(value))
    if seconds is None:
        try:
            date = datetime.fromisoformat(value)
            seconds = date.timestamp() - now if date.tzinfo is not None else None
        except (ValueError, OverflowError):
            return None
    if seconds is None or not seconds <= MAX_RESET_SECONDS:
        return None
    return max(0.0, seconds)


def parse_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the wait that the server asks for in seconds, or None if it names no valid one.

    Retry-After may be a number of seconds or a date (RFC 9110, section 10.2.3). OpenAI and Azure
    also send retry-after-ms, in milliseconds, which is more exact. `now` is in seconds since 1970.
    """
    exact = _parse_number(headers.get("retry-after-ms", ""))
    if exact is not None:
        return exact / 1000
    value = headers.get("retry-after", "")
    seconds = _parse_number(value)
    if seconds is None:
        try:
            seconds = max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
        except (ValueError, OverflowError):
            return None
    return seconds


def _parse_number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
