"""DSPy programs: only the instructions of one predictor change, byte for byte.

Shape: dspy/predict/predict.py and primitives/base_module.py (`dump_state`, `save`; 2026).
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.errors import DataError
from remask.integrations.dspy_program import patch

WHERE = Path("program.json")
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def state(text: str) -> dict[str, Any]:
    return {
        "traces": [],
        "train": [],
        "demos": [{"signature": {"instructions": "decoy"}, "q": "é {x}"}],
        "signature": {
            "instructions": text,
            "fields": [{"prefix": "Q:", "description": "${question}"}],
        },
        "lm": None,
    }


def program(**predictors: str) -> dict[str, Any]:
    states: dict[str, Any] = {name: state(text) for name, text in predictors.items()}
    return {**states, "metadata": {"dependency_versions": {"dspy": "3.4.1"}}}


@pytest.mark.parametrize("indent", [None, 2, "\t"])
@pytest.mark.parametrize("ascii", [True, False])
@settings(max_examples=25, deadline=None)
@given(TEXT, TEXT)
def test_nothing_else_changes(indent: int | str | None, ascii: bool, old: str, new: str) -> None:
    value = program(**{"answer.predict": old})
    source = json.dumps(value, indent=indent, ensure_ascii=ascii)
    patched = patch(source, WHERE, new)
    value["answer.predict"]["signature"]["instructions"] = new
    assert json.loads(patched) == value
    assert patch(patched, WHERE, old) == source  # all other bytes are where they were


def test_a_predictor_is_named_where_there_are_several() -> None:
    source = json.dumps(program(plan="a", answer="b"))
    with pytest.raises(DataError, match=r"--predictor: plan, answer"):
        patch(source, WHERE, "new")
    with pytest.raises(DataError, match=r"no predictor 'x'; it has plan, answer"):
        patch(source, WHERE, "new", "x")
    changed = json.loads(patch(source, WHERE, "new", "answer"))
    assert changed == program(plan="a", answer="new")


def test_a_bare_predict_is_a_program() -> None:
    source = json.dumps({**state("old"), "metadata": {}}, indent=1)
    assert json.loads(patch(source, WHERE, "new")) == {**state("new"), "metadata": {}}


def test_the_last_of_equal_keys_counts_as_for_every_reader() -> None:
    source = (
        '{"p": {"signature": {"instructions": "one", "instructions": "two"}}, "p": '
        '{"signature" :{"a":[{"instructions":"no"}] , "instructions"\n: "three"}}}'
    )
    assert patch(source, WHERE, "new") == source.replace('"three"', '"new"')


@pytest.mark.parametrize("source", ["", "[", "[" * 100_000, "[]", "1", "{}", '{"p": {}}'])
def test_what_is_no_program_is_refused(source: str) -> None:
    with pytest.raises(DataError, match=r"malformed JSON|no predictor"):
        patch(source, WHERE, "new")
