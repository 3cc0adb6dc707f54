"""A budget that cannot pay a run is refused before the first call."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import remask
from fakes.colours import Oracle, Phrases, rows
from remask.errors import ConfigError

PRICES = {"input_price": 1.0, "output_price": 2.0}
ENDPOINT = remask.Target("openai:m", base_url="http://127.0.0.1:9/v1", **PRICES)


def optimize(folder: Path, target: Any, **limits: Any) -> remask.Result:
    return remask.optimize(
        "Name the colour.", remask.Dataset(rows(), split="split"), target=target,
        denoiser=Phrases(), run_dir=folder / "run", budget=remask.Budget(**limits),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"calls": 469}, r"budget\.calls \(--max-calls\) is 469, but a run needs 489 calls or more"),
        ({"calls": None, "tokens": 900}, r"budget\.tokens \(--max-total-tokens\) is 900 tokens, .* about"),
        ({"calls": None, "usd": 1e-6}, r"budget\.usd \(--max-usd\) is \$0\.000001, .* about \$0\.00"),
        ({"calls": None, "minutes": 1e-4}, r"budget\.minutes \(--max-minutes\) is 0\.0001 minutes, "),
    ],
)
def test_a_limit_that_cannot_pay_a_run_names_what_a_run_needs(
    tmp_path: Path, limits: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        optimize(tmp_path, ENDPOINT, **limits)
    assert "for the sealed test" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_the_calls_that_a_run_is_said_to_need_are_enough_for_one_round(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs 470 calls or more"):
        optimize(tmp_path, Oracle(), calls=469)
    found = optimize(tmp_path, Oracle(), calls=470)
    assert found.candidates >= 6 and found.test is not None and found.test.n == 180
    assert "calls" in asdict(found.spend) and found.spend.calls <= 470


def test_tokens_that_are_enough_by_the_estimate_are_enough_for_a_function(tmp_path: Path) -> None:
    """A function reports no tokens, so that a call costs its upper bound, far above the estimate."""
    found = optimize(tmp_path, Oracle(), calls=None, tokens=1_000_000)
    assert found.test is not None
