"""Read prompts and their conversations from files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import write_lines
from remask.dlm.training.corpus import draw_traces, hold_out, read_examples
from remask.errors import ConfigError, DataError

PROMPT = "Name the team that should answer the message of the customer."


def row(prompt: str = PROMPT, *answers: str, **more: Any) -> dict[str, Any]:
    examples = [{"input": f"q{i}", "output": answer} for i, answer in enumerate(answers)]
    return {"prompt": prompt, "examples": examples, "license": "MIT", **more}


def test_equal_prompts_are_one_example(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", row(PROMPT, "red"), row(PROMPT, "blue"), row("Too short."))
    (example,) = read_examples([tmp_path])
    assert sorted(t.desired or "" for t in example.traces) == ["blue", "red"]
    assert example.licence == "MIT"


def test_wrong_example_keeps_its_feedback(tmp_path: Path) -> None:
    wrong = {"input": "q", "output": "grey", "correct": False, "feedback": "Not a team."}
    file = write_lines(tmp_path / "a.jsonl", {"prompt": PROMPT, "examples": [wrong]})
    ((trace,),) = [example.traces for example in read_examples([file])]
    assert (trace.response, trace.desired, trace.score) == ("grey", None, 0.0)
    assert trace.feedback[0].text == "Not a team."


def test_conversations_are_joined_by_their_system_prompt(tmp_path: Path) -> None:
    chats = [
        {"messages": [{"role": "system", "content": PROMPT},
                      {"role": "user", "content": f"mail {i} from ann@example.com"},
                      {"role": "assistant", "content": "delivery"}]}
        for i in range(3)
    ]  # fmt: skip
    (example,) = read_examples([write_lines(tmp_path / "a.jsonl", *chats)])
    assert example.prompt == PROMPT and len(example.traces) == 3
    assert not any("ann@" in trace.query for trace in example.traces), (
        "a trained model can repeat its training text"
    )


def test_leave_out_matches_names_and_prompts(tmp_path: Path) -> None:
    other = f"{PROMPT} Say the sentiment."
    file = write_lines(tmp_path / "a.jsonl", row(), row(other), row(PROMPT + " x", task="t_sentiment"))
    assert [example.prompt for example in read_examples([file], "SENTIMENT")] == [PROMPT]


def test_held_out_prompts_are_the_same_for_any_corpus(tmp_path: Path) -> None:
    rows = [row(f"{PROMPT} Number {i}.", "red") for i in range(30)]
    all_cases = read_examples([write_lines(tmp_path / "a.jsonl", *rows)])
    kept, held = hold_out(all_cases, 5)
    assert len(held) == 5 and len(kept) == 25
    fewer = [example for example in all_cases if example.prompt.endswith(("1.", "2."))] + held
    assert hold_out(fewer, 5)[1] == held
    assert not {example.id for example in kept} & {example.id for example in held}


def test_traces_get_a_wrong_response_in_half_of_the_cases(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", row(PROMPT, *(["red", "blue"] * 20)))
    traces = draw_traces(read_examples([file])[0], np.random.default_rng(0))
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
def test_invalid_corpus_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(DataError, match=says):
        read_examples([tmp_path / "a.jsonl"])
    with pytest.raises(DataError, match="no such file"):
        read_examples([tmp_path / "none.jsonl"])


def test_invalid_expression_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a regular expression"):
        read_examples([write_lines(tmp_path / "a.jsonl", row())], "(")
