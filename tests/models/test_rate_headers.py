from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.models.rate_headers import Allowance, parse_allowances

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
NAMES = [
    f"{prefix}{part}"
    for prefix in ("x-ratelimit-", "ratelimit-", "x-ratelimit-")
    for part in ("limit", "remaining", "reset", "limit-tokens", "remaining-tokens", "reset-tokens")
] + ["ratelimit", "anthropic-ratelimit-requests-reset", "anthropic-ratelimit-requests-remaining"]


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (
            {
                "X-RateLimit-Limit-Requests": "5000",
                "x-ratelimit-remaining-requests": "4999",
                "x-ratelimit-reset-requests": "12ms",
                "x-ratelimit-limit-tokens": "160000",
                "x-ratelimit-remaining-tokens": "100000",
                "x-ratelimit-reset-tokens": "1m30.5s",
            },
            [Allowance("requests", 4999, 0.012, 5000, True), Allowance("tokens", 1e5, 90.5, 160000, True)],
        ),
        (
            {
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-01-02T03:05:05Z",
            },
            [Allowance("requests", 0, 60.0, 50, True)],
        ),
        (
            {"RateLimit-Limit": "100", "RateLimit-Remaining": "7", "RateLimit-Reset": "30"},
            [Allowance("requests", 7, 30.0, 100, False)],
        ),
        ({"RateLimit": '"day";r=900;t=4000, "minute";r=5;t=20'}, [Allowance("requests", 5, 20, None, False)]),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": str(int(NOW) + 9)},
         [Allowance("requests", 3, 9.0, None, False)]),
        ({"x-ratelimit-remaining-requests": "9", "x-ratelimit-limit-requests": "5",
          "x-ratelimit-reset-requests": "1s"}, []),
        ({"x-ratelimit-remaining-requests": "9"}, []),
        ({"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-requests": "soon"}, []),
        ({"ratelimit-remaining": "-1", "ratelimit-reset": "nan"}, []),
        ({"content-type": "text/html"}, []),
    ],
)  # fmt: skip
def test_known_headers_are_read(headers: dict[str, str], found: list[Allowance]) -> None:
    assert parse_allowances(headers, NOW) == found


def test_rate_of_what_refills() -> None:
    assert Allowance("requests", 400, 60.0, 1000, True).rate == 10
    for one in (
        Allowance("requests", 400, 60.0, 1000, False),
        Allowance("requests", 400, 60.0, None, True),
        Allowance("requests", 1000, 60.0, 1000, True),
        Allowance("requests", 400, 0.0, 1000, True),
    ):
        assert one.rate is None


values = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"[-+]?\d{0,20}(ms|s|m|h)?(\d+s)?", fullmatch=True),
    st.floats().map(str),
    st.datetimes().map(str),
)


@settings(deadline=None)
@given(headers=st.dictionaries(st.sampled_from(NAMES), values), now=st.floats(0, 4e9))
def test_any_value_gives_a_sane_allowance_or_none(headers: dict[str, str], now: float) -> None:
    for one in parse_allowances(headers, now):
        assert one.remaining >= 0 and 0 <= one.reset <= 86_400
        assert np.isfinite([one.remaining, one.reset, one.limit or 0]).all()
        assert one.rate is None or one.rate > 0
