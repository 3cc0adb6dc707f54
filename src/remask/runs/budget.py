"""Limits of a run and what it has spent: calls, tokens, money, minutes.

The need of a call is always an upper bound, so no limit is ever exceeded.
"""

import math
from dataclasses import dataclass

from remask.errors import ConfigError

LIMITED = {"usd": "money", "minutes": "time"}  # what a limit that is not a count limits


@dataclass(frozen=True, slots=True)
class Spend:
    """What was spent, or an upper bound of what will be spent."""

    calls: int = 0  # attempts that may be billed
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0  # of work: calls and denoising
    uncertain: int = 0  # of `calls`: interrupted, and perhaps not billed

    def __add__(self, other: "Spend") -> "Spend":
        return Spend(
            self.calls + other.calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.usd + other.usd,
            self.seconds + other.seconds,
            self.uncertain + other.uncertain,
        )

    def __sub__(self, other: "Spend") -> "Spend":
        return Spend(
            self.calls - other.calls,
            self.input_tokens - other.input_tokens,
            self.output_tokens - other.output_tokens,
            self.usd - other.usd,
            self.seconds - other.seconds,
            self.uncertain - other.uncertain,
        )

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a run; None means no limit. Raises ConfigError if a limit is not positive."""

    calls: int | None = None
    tokens: int | None = None  # input plus output
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
                    f"the limit on {name} is {limit}, but must be more than 0; None means no limit"
                )

    @property
    def counts_tokens(self) -> bool:
        """Whether a limit needs an upper bound of the tokens of each call."""
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
        return (input_tokens * self.input_per_million + output_tokens * self.output_per_million) / 1e6


def check_price(budget: Limits, price: Price | None) -> None:
    """Raise ConfigError if there is a limit in dollars but no price."""
    if budget.usd is not None and price is None:
        raise ConfigError(
            f"a limit of {format_usd(budget.usd)} needs a price; give the prices of a million input and "
            "output tokens, or limit calls or tokens instead"
        )


def find_shortfall(budget: Limits, spent: Spend, need: Spend, reserved: Spend) -> str:
    """Return which limit `need` would exceed, in a sentence; "" if it fits under every limit.

    reserved: what is kept for the final test; it counts as spent.
    """
    if budget.calls is not None and spent.calls + reserved.calls + need.calls > budget.calls:
        return _describe_shortfall("calls", budget.calls, spent.calls, reserved.calls, need.calls)
    tokens = spent.tokens + reserved.tokens + need.tokens
    if budget.tokens is not None and tokens > budget.tokens:
        sums = spent.tokens, reserved.tokens, need.tokens
        return _describe_shortfall("tokens", budget.tokens, *sums)
    if budget.usd is not None and spent.usd + reserved.usd + need.usd > budget.usd:
        return _describe_shortfall("usd", budget.usd, spent.usd, reserved.usd, need.usd)
    seconds = spent.seconds + reserved.seconds + need.seconds
    if budget.minutes is not None and seconds > budget.minutes * 60:
        minutes = (sum.seconds / 60 for sum in (spent, reserved, need))
        return _describe_shortfall("minutes", budget.minutes, *minutes)
    return ""


def format_amount(unit: str, amount: float) -> str:
    """Format an amount of a limit with its unit: "1,200 calls", "$0.05", "2.5 minutes"."""
    number = _format_number(unit, amount)
    return number if unit == "usd" else f"{number} {unit[:-1] if number == '1' else unit}"


def _format_number(unit: str, amount: float) -> str:
    if unit == "usd":
        return format_usd(amount)
    return f"{amount:,.3g}" if unit == "minutes" and amount < 1000 else f"{amount:,.0f}"


def format_usd(amount: float) -> str:
    """Format US dollars with two decimals, and small ones with three digits: $12.50, $0.00123."""
    if not 0 < abs(amount) < 1:
        return f"${amount:,.2f}"
    decimals = 2 - math.floor(math.log10(abs(amount)))
    whole, _, cents = f"{amount:.{decimals}f}".partition(".")
    return f"${whole}.{cents.rstrip('0').ljust(2, '0')}"


def _describe_shortfall(unit: str, limit: float, used: float, reserved: float, need: float) -> str:
    left = limit - used - reserved
    kept = f", {_format_number(unit, reserved)} reserved for the test" if reserved else ""
    sums = f"({_format_number(unit, used)} of {format_amount(unit, limit)} used{kept})"
    counted = unit in ("calls", "tokens")
    if left <= 0:
        return f"no {unit} are left {sums}" if counted else f"the {LIMITED[unit]} is used up {sums}"
    upper, verb = "" if counted else "up to ", "are" if counted and left != 1 else "is"
    return (
        f"the next step needs {upper}{format_amount(unit, need)} and {_format_number(unit, left)} "
        f"{verb} left {sums}"
    )
