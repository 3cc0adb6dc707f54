"""DSPy programs: only the instructions of one predictor change.

Shape: dspy/predict/predict.py and primitives/base_module.py (`dump_state`, `save`; 2026).
"""

import json
from pathlib import Path
from typing import Any

import pytest

from remask.data.places import read_places, write_places
from remask.errors import ConfigError
from remask.integrations.export import replace_instructions
from remask.prompt import Prompt

NEW = Prompt("new {x}")


def state(text: str) -> dict[str, Any]:
    return {
        "traces": [],
        "train": [],
        "demos": [{"signature": {"instructions": "decoy"}, "q": "é {x}"}],
        "signature": {"instructions": text, "fields": [{"prefix": "Q:", "description": "${question}"}]},
        "lm": None,
    }


def program(**predictors: str) -> dict[str, Any]:
    states: dict[str, Any] = {name: state(text) for name, text in predictors.items()}
    return {**states, "metadata": {"dependency_versions": {"dspy": "3.4.1"}}}


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_replace_instructions_changes_nothing_else(indent: int | str | None) -> None:
    source = json.dumps(program(**{"answer.predict": "old"}), indent=indent, ensure_ascii=False)
    assert replace_instructions(source, NEW) == source.replace('"old"', '"new {x}"')


def test_replace_instructions_needs_the_predictor_of_several() -> None:
    source = json.dumps(program(plan="a", answer="b"))
    with pytest.raises(ConfigError, match=r"--predictor: plan, answer"):
        replace_instructions(source, NEW)
    with pytest.raises(ConfigError, match=r"no predictor 'x'; it has plan, answer"):
        replace_instructions(source, NEW, "x")
    assert json.loads(replace_instructions(source, NEW, "answer")) == program(plan="a", answer=NEW.text)


def test_replace_instructions_accepts_a_saved_predict() -> None:
    source = json.dumps({**state("old"), "metadata": {}}, indent=1)
    assert json.loads(replace_instructions(source, NEW)) == {**state(NEW.text), "metadata": {}}


@pytest.mark.parametrize("source", ["", "[", "[" * 100_000, "[]", "1", "{}", '{"p": {}}'])
def test_replace_instructions_refuses_other_files(source: str) -> None:
    with pytest.raises(ConfigError, match=r"malformed JSON|no predictor"):
        replace_instructions(source, NEW)


def test_a_program_that_dspy_saved_is_read_and_written_at_places(tmp_path: Path) -> None:
    dspy = pytest.importorskip("dspy")
    chain = dspy.ChainOfThought(dspy.Signature("question -> answer", "Answer é {x}."))
    chain.save(str(tmp_path / "program.json"))
    spec = {"step:*": "program.json"}
    assert read_places(spec, tmp_path) == {"step:predict": "Answer é {x}."}
    write_places(spec, {"step:predict": "Think first."}, tmp_path)
    fresh = dspy.ChainOfThought("question -> answer")
    fresh.load(str(tmp_path / "program.json"))
    assert fresh.predict.signature.instructions == "Think first."
