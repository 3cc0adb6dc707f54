"""Arithmetic of what a run may cost and has cost: calls, tokens, money, minutes.

Knows sums and limits. Does not know who spends, what a call is for, or where the sums are stored.
A need is always an upper bound, so that a limit is never passed by what is done under it.
"""

import math
from dataclasses import dataclass

from remask.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Spend:
    """What was spent, or what something may cost at most."""

    calls: int = 0  # attempts that may be billed
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0  # of waiting for the target
    uncertain: int = 0  # of `calls`: those that were in flight at a kill and may not be billed

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.usd + other.usd,
            self.seconds + other.seconds,
            self.uncertain + other.uncertain,
        )

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that are never passed; None is no limit. Raises ConfigError for a limit of no use."""

    calls: int | None = None
    tokens: int | None = None  # input and output together
    minutes: float | None = None
    usd: float | None = None

    def __post_init__(self) -> None:
        limits = (
            ("calls", self.calls),
            ("tokens", self.tokens),
            ("minutes", self.minutes),
            ("usd", self.usd),
        )
        for name, limit in limits:
            if limit is not None and not 0 < limit < math.inf:
                raise ConfigError(
                    f"the budget's limit on {name} is {limit}; give a positive number or none"
                )

    @property
    def counts_tokens(self) -> bool:
        """Whether a limit can only be held with an upper bound of tokens."""
        return self.tokens is not None or self.usd is not None


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    input_per_million: float
    output_per_million: float

    def __post_init__(self) -> None:
        for name, price in (("input", self.input_per_million), ("output", self.output_per_million)):
            if not 0 <= price < math.inf:
                raise ConfigError(
                    f"the price of a million {name} tokens is {price}; give 0 or a positive number"
                )

    def usd(self, input_tokens: int, output_tokens: int) -> float:
        return (
            input_tokens * self.input_per_million + output_tokens * self.output_per_million
        ) / 1e6


def check_price(budget: Limits, price: Price | None) -> None:
    """Raise ConfigError where a limit in dollars could not be held."""
    if budget.usd is not None and price is None:
        raise ConfigError(
            f"a limit of {budget.usd:g} USD cannot be held without a price; give the prices of a "
            "million input and output tokens, or limit calls or tokens instead"
        )


def find_shortfall(budget: Limits, spent: Spend, need: Spend, reserved: Spend) -> str:
    """ "" if `need` fits under every limit, else a sentence that says which one it would pass.

    `reserved` is set aside for something later (the final test) and counts as if it were spent.
    """
    if budget.calls is not None and spent.calls + reserved.calls + need.calls > budget.calls:
        return _describe_calls("calls", budget.calls, spent.calls, reserved.calls, need.calls)
    if budget.tokens is not None and spent.tokens + reserved.tokens + need.tokens > budget.tokens:
        return _describe_calls("tokens", budget.tokens, spent.tokens, reserved.tokens, need.tokens)
    if budget.usd is not None and spent.usd + reserved.usd + need.usd > budget.usd:
        return _describe_amount("USD", budget.usd, spent.usd, reserved.usd, need.usd)
    seconds = spent.seconds + reserved.seconds + need.seconds
    if budget.minutes is not None and seconds > budget.minutes * 60:
        used, kept, asked = (s.seconds / 60 for s in (spent, reserved, need))
        return _describe_amount("minutes", budget.minutes, used, kept, asked)
    return ""


def _describe_calls(unit: str, limit: int, used: int, kept: int, asked: int) -> str:
    aside = f"{kept:,} set aside, " if kept else ""
    return f"{used:,} of {limit:,} {unit} used, {aside}{asked:,} more asked"


def _describe_amount(unit: str, limit: float, used: float, kept: float, asked: float) -> str:
    aside = f"{kept:.4g} set aside, " if kept else ""
    return f"{used:.4g} of {limit:.4g} {unit} used, {aside}up to {asked:.4g} more asked"
