"""The examples in the docstrings of the public functions and classes, run as they stand."""

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import remask

NAMES = [name for name in remask.__all__ if not name.endswith("_async")]


def examples(name: str) -> Iterator[doctest.DocTest]:
    text = inspect.getdoc(getattr(remask, name)) or ""
    found = doctest.DocTestParser().get_doctest(text, {}, f"remask.{name}", None, None)
    if found.examples:
        yield found


CASES = [
    # Two whole runs with the built-in denoiser.
    pytest.param(test, id=test.name, marks=pytest.mark.slow if name == "resume" else ())
    for name in NAMES
    for test in examples(name)
]


@pytest.mark.parametrize("test", CASES)
def test_the_example_of_a_docstring_runs(here: Path, test: doctest.DocTest) -> None:
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(test, out=said.append)
    assert not said, "".join(said)


def test_every_function_and_argument_has_an_example() -> None:
    without = {name for name in NAMES if not list(examples(name))}
    assert without == {
        "Evaluation",
        "Night",
        "Pilot",
        "Result",
        "Score",
        "system_prompt_of",
    }  # which are returned
