"""A promptfooconfig.yaml as data: its tests as rows, what its assertions mean, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fakes.scripted_target import ScriptedTarget
from remask.api.build_task import make_dataset
from remask.api.job import open_job
from remask.cli import main
from remask.cli.settings import read
from remask.config import make_config
from remask.data.dataset import Columns, load
from remask.errors import ConfigError, DataError
from remask.prompt import Prompt
from remask.tasks.labelled import LabelledTask
from remask.tasks.metrics import JudgeMetric
from remask.tasks.promptfoo import ASSERT, Assertions, read_tests
from remask.types import Chat, Example

TESTS = """
prompts: [file://never-read.json]
providers: ["openai:gpt"]
defaultTest: {assert: [{type: icontains, value: "{{ thing }}"}]}
tests:
  - vars: {thing: yes, size: 1.0}
    assert: [{type: regex, value: "^{{thing}}"}]
  - vars: {thing: no, size: ~}
    description: the other one
"""


def config(folder: Path, text: str) -> Path:
    path = folder / "promptfooconfig.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def row(*assertions: tuple[str, str]) -> Example:
    stated = [{"type": kind, "value": value} for kind, value in assertions]
    return Example("1", "test", "question", json.dumps(stated))


def score(response: str, *assertions: tuple[str, str]) -> float:
    (grade,) = Assertions().grade([row(*assertions)], [response])
    return grade.score


def test_read_tests_applies_defaults_and_keeps_values_as_written(tmp_path: Path) -> None:
    assert read_tests(config(tmp_path, TESTS)) == [
        {
            "thing": "yes",
            "size": "1.0",
            "assert": [{"type": "icontains", "value": "yes"}, {"type": "regex", "value": "^yes"}],
        },
        {"thing": "no", "size": "~", "assert": [{"type": "icontains", "value": "no"}]},
    ]


CSV = """thing,__expected,__expected2
rose,red,"contains: a, b"
sky,is-json,
sea,llm-rubric: is {{thing}},
"""
JSON = json.dumps(
    [
        {
            "vars": {"thing": "rose"},
            "assert": [{"type": "equals", "value": "red"}, {"type": "contains", "value": "a, b"}],
        },
        {"vars": {"thing": "sky"}, "assert": [{"type": "is-json"}]},
        {"vars": {"thing": "sea"}, "assert": [{"type": "llm-rubric", "value": "is {{thing}}"}]},
    ]
)


@pytest.mark.parametrize(("name", "text"), [("t.csv", CSV), ("t.json", JSON), ("t.yaml", JSON)])
def test_read_tests_reads_a_separate_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    for said in (name, f"file://{name}"):
        found = read_tests(config(tmp_path, f"tests: {said}"))
        assert [record["thing"] for record in found] == ["rose", "sky", "sea"]
        assert [[tuple(a.values()) for a in record["assert"]] for record in found] == [
            [("equals", "red"), ("contains", "a, b")],
            [("is-json", "")],
            [("llm-rubric", "is sea")],
        ]


def test_read_tests_converts_json_values_to_text(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(
        '[{"vars": {"a": 3, "b": true, "c": null}, "assert": [{"type":"equals","value":"{{a}}"}]}]'
    )
    (record,) = read_tests(config(tmp_path, "tests: t.json"))
    assert record == {"a": "3", "b": "true", "c": "", "assert": [{"type": "equals", "value": "3"}]}


@pytest.mark.parametrize(
    ("kind", "value", "good", "bad"),
    [
        ("equals", "a", "a", "a "),
        ("contains", "a", "bab", "A"),
        ("icontains", "A", "bab", "b"),
        ("starts-with", "a", "ab", "ba"),
        ("regex", r"(?P<n>\d)(?P=n)$", "a11", "12"),
        ("is-json", "", "[1]", "NaN"),
    ],
)
def test_assertions_grade_each_type(kind: str, value: str, good: str, bad: str) -> None:
    assert score(good, (kind, value)) == 1
    (grade,) = Assertions().grade([row((kind, value))], [bad])
    assert (grade.score, grade.feedback) == (0, f"the response fails {kind} {value}".rstrip())


def test_assertions_of_a_row_must_all_hold() -> None:
    assert score("ab", ("contains", "a"), ("contains", "b")) == 1
    assert score("a", ("contains", "a"), ("contains", "b")) == 0


@pytest.mark.parametrize(
    ("assertions", "desired"),
    [
        ([("contains", "x"), ("equals", "red")], "red"),
        ([("icontains", "red"), ("is-json", "")], "red"),
        ([("contains", "red"), ("icontains", "blue")], None),
        ([("regex", "red")], None),
    ],
)
def test_assertions_give_the_right_response_if_one_states_it(
    assertions: list[tuple[str, str]], desired: str | None
) -> None:
    assert Assertions().find_right_response(row(*assertions)) == desired


def test_assertions_call_the_judge_after_all_others_hold() -> None:
    rows = [
        row(("llm-rubric", "is polite"), ("llm-rubric", "is short")),
        row(("icontains", "yes"), ("llm-rubric", "is true")),
        row(("icontains", "no"), ("llm-rubric", "is true")),
        row(("icontains", "yes")),
    ]
    asked: list[Chat] = []

    def answer(chat: Chat) -> str:
        asked.append(chat)
        return "Reason: because\nScore: 5"

    metric = Assertions(JudgeMetric(ScriptedTarget(answer), ""))
    grades = metric.grade(rows, ["yes."] * 4)
    assert [grade.score for grade in grades] == [0.5, 0.5, 0, 1]
    assert grades[0].feedback == "because"
    (first, rest), (second, reference) = ([m.content for m in chat] for chat in asked)
    assert "Rubric: is polite\nis short\n" in first and "Rubric: is true\n" in second
    assert "reference answer" not in rest and "llm-rubric" not in rest + reference
    assert "reference answer:" in reference


def test_assertions_explain_failures_in_the_trace(tmp_path: Path) -> None:
    (example,) = load(
        [{"thing": "sky", ASSERT: [{"type": "icontains", "value": "blue"}]}], Columns("{thing}", ASSERT)
    ).examples
    task = LabelledTask([example], ScriptedTarget(lambda chat: "Red."), Assertions())
    (outcome,) = task.evaluate(Prompt("Say the colour."), [example.id])
    assert outcome.score == 0 and outcome.trace is not None
    assert outcome.trace.desired == "blue"
    assert [note.text for note in outcome.trace.feedback] == ["the response fails icontains blue"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tests: [{vars: {a: b}, assert: [{type: javascript, value: x}]}]",
         "tests[0].assert.type = 'javascript' cannot be read; write one of equals, contains"),
        ("tests: [{vars: {a: b}, assert: [{type: not-contains, value: x}]}]", "'not-contains'"),
        ("tests: [{vars: {a: b}, assert: [{type: is-json, value: {a: b}}]}]",
         "tests[0].assert.value = {'a': 'b'} cannot be read; write one text"),
        ("tests: [{vars: {a: b}, assert: [{type: contains, value: x, weight: 2}]}]",
         "tests[0].assert.weight = '2' cannot be read; write only type, value"),
        ("tests: [{vars: {a: b}, assert: [{type: contains}]}]", "tests[0].assert.contains = ''"),
        ("tests: [{vars: {a: b}, assert: [{type: regex, value: '('}]}]", "assert.regex = '('"),
        ("tests: [{vars: {a: b}, assert: [{type: regex, value: '(?i)x'}]}]", "without flags"),
        ("tests: [{vars: {a: b}, assert: [{type: equals, value: '{{a|upper}}'}]}]",
         "'{{a|upper}}' cannot be read"),
        ("tests: [{vars: {a: b}, assert: [{type: equals, value: '{{c}}'}]}]", "'{{c}}'"),
        ("tests: [{vars: {a: b}, assert: [{type: equals, value: file://x.txt}]}]", "file://x.txt"),
        ("tests: [{vars: {a: b}}]", "tests[0].assert = [] cannot be read; write an assertion"),
        ("tests: [{vars: {a: [b, c]}, assert: [{type: is-json}]}]",
         "tests[0].vars.a = ['b', 'c'] cannot be read; write one plain text"),
        ("tests: [{vars: {a: file://x.txt}, assert: [{type: is-json}]}]", "vars.a = 'file://x.txt'"),
        ("tests: [{vars: {a: 'see {{b}}'}, assert: [{type: is-json}]}]", "vars.a = 'see {{b}}'"),
        ("tests: [{vars: {a: b}, options: {transform: x}, assert: [{type: is-json}]}]",
         "tests[0].options = {'transform': 'x'} cannot be read; write only vars, assert"),
        ("tests: [{vars: {a: b}, threshold: 0.5}]", "tests[0].threshold = '0.5'"),
        ("defaultTest: {threshold: 0.5}\ntests: []", "defaultTest.threshold = '0.5'"),
        ("defaultTest: file://d.yaml\ntests: []", "config.defaultTest = 'file://d.yaml' cannot be "
         "read; write a mapping"),
        ("scenarios: [x]\ntests: []", "config.scenarios = ['x'] cannot be read; write only tests"),
        ("tests: [more.csv]", "tests[0] = 'more.csv' cannot be read"),
        ("tests: file://tests.py", "unknown file type '.py'; save it as JSON or YAML"),
        ("tests: none.csv", "no such file"),
        ("- a", "config = ['a'] cannot be read"),
        ("tests:\n - [a\n", "promptfooconfig.yaml:3: malformed YAML"),
    ],
)  # fmt: skip
def test_read_tests_names_unsupported_keys_and_values(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        read_tests(config(tmp_path, text))
    assert words in str(caught.value) and str(tmp_path) in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("thing,__expected\nrose,python: x\n", "tests[0].assert.type = 'python'"),
        ("thing,__expected\nrose,\n", "tests[0].assert = []"),
        ("thing,__expected,__prefix\nrose,red,x\n", "tests[0].__prefix = 'x'"),
        ("thing,__expected\nrose\n", "t.csv:2: "),
    ],
)
def test_read_tests_names_unsupported_columns_of_a_csv_file(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        read_tests(config(tmp_path, "tests: t.csv"))
    assert words in str(caught.value)


def flags(path: Path, **more: Any) -> dict[str, Any]:
    return {"data": str(path), "input": "{thing}", **more}


def test_promptfoo_config_sets_the_metric(tmp_path: Path) -> None:
    (tmp_path / "prompt.md").write_text("Say the colour of {{thing}}.")
    path = config(tmp_path, TESTS)
    made = read(str(tmp_path / "prompt.md"), flags(path)).config
    assert made.metric.name == "promptfoo" and made.metric.judge is None
    dataset = make_dataset(made)
    by = {example.input: example for example in dataset.examples}
    assert set(by) == {"yes", "no"}
    assert by["no"].row == {"thing": "no", "size": "~"}, "assertions are not filled into prompts"
    assert by["no"].expected == '[{"type": "icontains", "value": "no"}]'
    assert [note.partition(":")[0] for note in dataset.warnings] == ["only 1 test row"]


def test_promptfoo_config_works_with_another_metric(tmp_path: Path) -> None:
    (tmp_path / "prompt.md").write_text("Say it.")
    words = flags(config(tmp_path, TESTS), metric="exact", expected="size")
    made = read(str(tmp_path / "prompt.md"), words).config
    assert {example.expected for example in make_dataset(made).examples} == {"1.0", "~"}


def test_promptfoo_config_errors_are_raised_before_the_first_call(tmp_path: Path) -> None:
    (tmp_path / "prompt.md").write_text("Say it.")
    prompt = str(tmp_path / "prompt.md")
    with pytest.raises(ConfigError, match=r"contains tests; name a prompt file and give --data "):
        read(str(config(tmp_path, TESTS)), {})
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"thing": "a", "assert": []}\n')
    with pytest.raises(ConfigError, match=r"needs a promptfooconfig\.yaml as data"):
        make_dataset(read(prompt, flags(rows, metric="promptfoo")).config)
    tests = "".join(
        f"  - vars: {{thing: {n}}}\n    assert: [{{type: llm-rubric, value: good}}]\n" for n in range(8)
    )
    path = config(tmp_path, "tests:\n" + tests)
    with (
        pytest.raises(ConfigError, match="has the assertion llm-rubric; name a judge: --judge"),
        open_job(read(prompt, flags(path)).config) as job,
    ):
        job.require_all()
    made = read(prompt, flags(path, judge="openai:m", base_url="http://127.0.0.1:9/v1")).config
    assert made.metric.name == "promptfoo" and made.metric.judge is not None
    with open_job(made) as job:
        assert job.calls_per_row == 2
    with pytest.raises(ConfigError, match="--judge needs --rubric"):
        read(prompt, flags(rows, judge="openai:m"))
    own = read(prompt, flags(path, judge="openai:m", rubric="is kind")).config
    assert own.metric.name == "judge" and own.metric.rubric == "is kind"


def test_promptfoo_metric_can_be_set_from_python(tmp_path: Path) -> None:
    values = {
        "prompt": "Say it.",
        "data": {"path": str(config(tmp_path, TESTS)), "input": "thing"},
        "metric": {"name": "promptfoo"},
    }
    assert len(make_dataset(make_config(values, "test")).examples) == 2


@pytest.mark.slow
def test_promptfoo_config_can_be_optimised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the built-in models: rows are answered and scored by their assertions."""
    things = ("shop", "parcel", "card", "gift", "store", "order", "price", "shoe")
    rows = "".join(
        f"  - vars: {{thing: {thing}}}\n    assert: [{{type: icontains, value: {thing}}}]\n"
        for thing in things
    )
    config(tmp_path, "tests:\n" + rows)
    (tmp_path / "prompt.md").write_text("Say a word about the {{thing}}.")
    monkeypatch.chdir(tmp_path)
    words = ["optimize", "prompt.md", "--data", "promptfooconfig.yaml", "--input", "thing",
             "--max-calls", "30", "--run-dir", "run", "--plain"]  # fmt: skip
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "{{thing}}" in found["prompt"] and 0 < found["spend"]["calls"] <= 30
