"""Limits: what `find_shortfall` allows never exceeds a limit."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.errors import ConfigError
from remask.runs.budget import Limits, Price, Spend, check_price, find_shortfall, format_usd

counts = st.integers(0, 200)
amounts = st.floats(0, 200, allow_nan=False)
spends = st.builds(
    Spend,
    calls=counts,
    input_tokens=counts,
    output_tokens=counts,
    usd=amounts,
    seconds=amounts,
    uncertain=counts,
)
budgets = st.builds(
    Limits,
    calls=st.none() | st.integers(1, 300),
    tokens=st.none() | st.integers(1, 600),
    minutes=st.none() | st.floats(0.1, 6),
    usd=st.none() | st.floats(0.1, 300),
)


def under_every_limit(budget: Limits, total: Spend) -> bool:
    """The definition, written a second time."""
    return (
        total.calls <= (math.inf if budget.calls is None else budget.calls)
        and total.input_tokens + total.output_tokens <= (math.inf if budget.tokens is None else budget.tokens)
        and total.usd <= (math.inf if budget.usd is None else budget.usd)
        and total.seconds <= (math.inf if budget.minutes is None else budget.minutes * 60)
    )


@settings(deadline=None, max_examples=300)
@given(budgets, spends, spends, spends)
def test_find_shortfall_checks_every_limit(budget, spent, need, reserved):
    total = spent + reserved + need
    assert (find_shortfall(budget, spent, need, reserved) == "") == under_every_limit(budget, total)


@settings(deadline=None)
@given(st.integers(1, 100), st.lists(st.integers(1, 20), max_size=40), st.integers(0, 30))
def test_find_shortfall_keeps_what_is_reserved(limit, asked, reserved):
    budget, spent = Limits(calls=limit), Spend()
    for calls in asked:
        if not find_shortfall(budget, spent, Spend(calls=calls), Spend(calls=reserved)):
            spent += Spend(calls=calls)
    assert spent.calls == 0 or spent.calls <= limit - reserved


@settings(deadline=None)
@given(st.lists(spends, max_size=6))
def test_spend_sums_every_field(parts):
    total = sum(parts, Spend())
    assert total.calls == sum(p.calls for p in parts)
    assert total.tokens == sum(p.input_tokens + p.output_tokens for p in parts)
    assert total.uncertain == sum(p.uncertain for p in parts)
    assert total.usd == pytest.approx(sum(p.usd for p in parts))
    assert total.seconds == pytest.approx(sum(p.seconds for p in parts))


@pytest.mark.parametrize(
    ("budget", "spent", "need", "reserved", "sentence"),
    [
        (
            Limits(calls=2400),
            Spend(calls=2400),
            Spend(calls=32),
            Spend(),
            "no calls are left (2,400 of 2,400 calls used)",
        ),
        (
            Limits(calls=1200),
            Spend(calls=888),
            Spend(calls=6),
            Spend(calls=310),
            "the next step needs 6 calls and 2 are left (888 of 1,200 calls used, 310 reserved for the test)",
        ),
        (
            Limits(usd=1.5),
            Spend(usd=1.25),
            Spend(usd=0.01),
            Spend(usd=0.5),
            "the money is used up ($1.25 of $1.50 used, $0.50 reserved for the test)",
        ),
        (
            Limits(tokens=5000),
            Spend(input_tokens=3000, output_tokens=1000),
            Spend(input_tokens=900, output_tokens=101),
            Spend(),
            "the next step needs 1,001 tokens and 1,000 are left (4,000 of 5,000 tokens used)",
        ),
        (
            Limits(usd=2.5),
            Spend(usd=2.4),
            Spend(usd=0.2),
            Spend(),
            "the next step needs up to $0.20 and $0.10 is left ($2.40 of $2.50 used)",
        ),
        (
            Limits(minutes=10),
            Spend(seconds=590),
            Spend(seconds=30),
            Spend(),
            "the next step needs up to 0.5 minutes and 0.167 is left (9.83 of 10 minutes used)",
        ),
    ],
)
def test_find_shortfall_names_limit_and_sums(budget, spent, need, reserved, sentence):
    assert find_shortfall(budget, spent, need, reserved) == sentence


def test_find_shortfall_allows_the_last_call():
    assert find_shortfall(Limits(calls=10), Spend(calls=9), Spend(calls=1), Spend()) == ""
    assert find_shortfall(Limits(calls=10), Spend(calls=9), Spend(calls=2), Spend()) != ""


def test_find_shortfall_without_limits():
    assert find_shortfall(Limits(), Spend(calls=10**9, usd=1e9), Spend(calls=1), Spend()) == ""


@pytest.mark.parametrize("name", ["calls", "tokens", "minutes", "usd"])
@pytest.mark.parametrize("limit", [0, -3, math.nan, math.inf])
def test_limits_refuse_useless_values(name, limit):
    with pytest.raises(ConfigError, match=rf"limit on {name} is {limit}"):
        Limits(**{name: limit})


def test_check_price_needs_a_price_for_dollars():
    with pytest.raises(ConfigError, match=r"\$5\.00 needs a price"):
        check_price(Limits(usd=5), None)
    check_price(Limits(usd=5), Price(0, 0))
    check_price(Limits(calls=5), None)


def test_price_is_per_million_tokens():
    assert Price(2, 10).usd(500_000, 100_000) == pytest.approx(2.0)
    with pytest.raises(ConfigError, match="million output tokens is -1"):
        Price(1, -1)
    with pytest.raises(ConfigError, match="million input tokens is nan"):
        Price(math.nan, 1)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0.00"), (1e-06, "$0.000001"), (0.00123456, "$0.00123"), (0.05, "$0.05"), (0.1, "$0.10"),
        (0.9999, "$1.00"), (1, "$1.00"), (12.5, "$12.50"), (1234.567, "$1,234.57"),
    ],
)  # fmt: skip
def test_dollars_are_never_written_with_an_exponent(amount: float, text: str) -> None:
    assert format_usd(amount) == text


def test_limits_on_tokens_and_dollars_count_tokens():
    assert Limits(tokens=1).counts_tokens and Limits(usd=1).counts_tokens
    assert not Limits(calls=1, minutes=1).counts_tokens
