"""Prompts and their conversations from files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import write_lines
from remask.dlm.training.corpus import hold_out, read_cases, shown
from remask.errors import ConfigError, DataError

PROMPT = "Name the team that should answer the message of the customer."


def row(prompt: str = PROMPT, *answers: str, **more: Any) -> dict[str, Any]:
    examples = [{"input": f"q{i}", "output": answer} for i, answer in enumerate(answers)]
    return {"prompt": prompt, "examples": examples, "license": "MIT", **more}


def test_equal_prompts_are_one_case(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", row(PROMPT, "red"), row(PROMPT, "blue"), row("Too short."))
    (case,) = read_cases([tmp_path])
    assert sorted(t.desired or "" for t in case.traces) == ["blue", "red"]
    assert case.licence == "MIT"


def test_a_wrong_example_stands_with_what_was_said_of_it(tmp_path: Path) -> None:
    wrong = {"input": "q", "output": "grey", "correct": False, "feedback": "Not a team."}
    file = write_lines(tmp_path / "a.jsonl", {"prompt": PROMPT, "examples": [wrong]})
    ((trace,),) = [case.traces for case in read_cases([file])]
    assert (trace.response, trace.desired, trace.score) == ("grey", None, 0.0)
    assert trace.feedback[0].text == "Not a team."


def test_conversations_are_put_together_by_their_system_prompt(tmp_path: Path) -> None:
    chats = [
        {"messages": [{"role": "system", "content": PROMPT},
                      {"role": "user", "content": f"mail {i} from ann@example.com"},
                      {"role": "assistant", "content": "delivery"}]}
        for i in range(3)
    ]  # fmt: skip
    (case,) = read_cases([write_lines(tmp_path / "a.jsonl", *chats)])
    assert case.prompt == PROMPT and len(case.traces) == 3
    assert not any("ann@" in trace.query for trace in case.traces), "what is learnt can come out"


def test_what_is_left_out_is_found_in_names_and_prompts(tmp_path: Path) -> None:
    other = f"{PROMPT} Say the sentiment."
    file = write_lines(
        tmp_path / "a.jsonl", row(), row(other), row(PROMPT + " x", task="t_sentiment")
    )
    assert [case.prompt for case in read_cases([file], "SENTIMENT")] == [PROMPT]


def test_the_same_prompts_are_held_out_of_any_corpus(tmp_path: Path) -> None:
    rows = [row(f"{PROMPT} Number {i}.", "red") for i in range(30)]
    all_cases = read_cases([write_lines(tmp_path / "a.jsonl", *rows)])
    kept, held = hold_out(all_cases, 5)
    assert len(held) == 5 and len(kept) == 25
    fewer = [case for case in all_cases if case.prompt.endswith(("1.", "2."))] + held
    assert hold_out(fewer, 5)[1] == held
    assert not {case.id for case in kept} & {case.id for case in held}


def test_some_right_answers_are_shown_with_a_wrong_one(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", row(PROMPT, *(["red", "blue"] * 20)))
    traces = shown(read_cases([file])[0], np.random.default_rng(0))
    wrong = [t for t in traces if t.response != t.desired]
    # Each of 40 is wrong with probability 0.5: outside 8 to 32 by chance in under 1 of 10,000.
    assert 8 <= len(wrong) <= 32 and all(t.score == 0.0 for t in wrong)
    assert {t.desired for t in traces} == {"red", "blue"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"prompt": "x", "examples": []}', "no prompt of 8 words"),
        (f'{{"prompt": "{PROMPT}", "examples": []}}\n{{"prompt": 1}}', "a.jsonl:2: not a row"),
        (f'{{"prompt": "{PROMPT}", "examples": [{{"input": "q"}}]}}', "a.jsonl:1: not a row"),
    ],
)
def test_what_is_no_corpus_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(DataError, match=says):
        read_cases([tmp_path / "a.jsonl"])
    with pytest.raises(DataError, match="no such file"):
        read_cases([tmp_path / "none.jsonl"])


def test_a_broken_expression_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a regular expression"):
        read_cases([write_lines(tmp_path / "a.jsonl", row())], "(")
