"""A promptfooconfig.yaml as data: what is read, what it means, and what is refused and how."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from remask.cli import main
from remask.cli.settings import read
from remask.errors import DataError
from remask.tasks.assertions import Assertion, Demands
from remask.tasks.promptfoo import asked, load_config
from remask.types import Example

HEAD = 'prompts: ["Say the colour of {{thing}}."]\n'
TESTS = """defaultTest: {assert: [{type: not-contains, value: sorry}]}
tests:
  - vars: {thing: [rose, ruby]}
    assert: [{type: icontains, value: red}]
  - vars: {thing: sky}
    threshold: 0.5
    assert: [{type: regex, value: "^blue$", weight: 3}]
  - file://more.csv
"""


def config(folder: Path, text: str) -> Path:
    path = folder / "promptfooconfig.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_tests_become_rows_and_demands(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("thing,__expected\ncoal,contains:{{thing}} is black\n")
    path = config(tmp_path, HEAD + TESTS)
    found = asked(path)
    assert (found.prompt, found.role) == ("Say the colour of {{thing}}.", "user")
    dataset, suite = load_config(path, found.input)
    by: dict[str, Example] = {e.input: e for e in dataset.examples}
    assert set(by) == {"rose", "ruby", "sky", "coal"}
    assert by["coal"].expected == "coal is black" and by["coal"].row == {"thing": "coal"}
    assert suite(by["rose"], "RED").value == 1
    assert suite(by["rose"], "red, sorry").value == 0
    assert "sorry" in suite(by["rose"], "red, sorry").feedback
    assert suite(by["sky"], "blue sorry").value == 0 and suite(by["sky"], "blue").value == 1
    assert suite(by["sky"], "blue\n").value == 0  # as JavaScript's $


def test_a_chat_gives_prompt_and_message_and_settings(tmp_path: Path) -> None:
    (tmp_path / "chat.json").write_text(
        '[{"role":"system","content":"Be short."},{"role":"user","content":"{x} of {{thing}}?"}]'
    )
    path = config(
        tmp_path,
        "prompts: file://chat.json\n"
        "tests: [{vars: {thing: a}, assert: [{type: equals, value: b}]}]",
    )
    made = read(str(path), {}).config
    assert made.prompt == "Be short." and made.data.role == "system"
    assert made.metric.name == "promptfoo"
    (example,) = load_config(path, made.data.input)[0].examples
    assert example.input == "{x} of a?" and example.expected == "b"


@pytest.mark.parametrize(
    ("kind", "value", "good", "bad"),
    [
        ("equals", "a", "a", "a "),
        ("equals", {"a": 1}, '{"a": 1}', '{"a": true}'),
        ("contains", "a", "bab", "A"),
        ("icontains", "A", "bab", "b"),
        ("contains-any", ["a", "b"], "b", "c"),
        ("contains-all", ["a", "b"], "ba", "a"),
        ("icontains-any", ["A"], "a", "c"),
        ("icontains-all", ["A", "B"], "ba", "a"),
        ("starts-with", "a", "ab", "ba"),
        ("regex", r"(?<n>\d)\k<n>$", "a11", "12"),
        ("is-json", None, "[1]", "NaN"),
    ],
)
def test_each_assertion_and_its_opposite(kind: str, value: Any, good: str, bad: str) -> None:
    assert Assertion(kind, value).holds(good) and not Assertion(kind, value).holds(bad)
    opposite = Demands((Assertion(kind, value, negated=True),))
    assert opposite.grade(bad).value == 1 and opposite.grade(good).value == 0


def test_what_weighs_nothing_decides_nothing() -> None:
    demands = Demands((Assertion("contains", "a"), Assertion("contains", "b", weight=0.0)))
    assert demands.grade("a").value == 1 and demands.grade("b").value == 0


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("{vars: {a: b}, assert: [{type: javascript, value: x}]}", "test 1: the assertion javas"),
        ("{vars: {a: b}, assert: [{type: llm-rubric, value: x}]}", "llm-rubric runs code or a"),
        ("{vars: {a: b}}", "test 1: no assertion"),
        ("{description: d, vars: {a: b}, assert: [{type: contains}]}", "test 1 (d): contains has"),
        ('{vars: {a: b}, assert: [{type: regex, value: "("}]}', "cannot be read"),
        ('{vars: {a: b}, assert: [{type: equals, value: "{{a|upper}}"}]}', "more Nunjucks"),
        ("{vars: {a: file://x.py}, assert: [{type: is-json}]}", "there is no file"),
        ("{vars: {a: b}, options: {transform: x}, assert: [{type: is-json}]}", "transform cannot"),
        ("file://tests.py", "need code to run"),
        ("https://docs.google.com/x", "on a network"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(
    tmp_path: Path, test: str, words: str
) -> None:
    path = config(tmp_path, HEAD + f"tests: [{test}]")
    with pytest.raises(DataError) as caught:
        load_config(path, "{a}")
    assert words in str(caught.value) and path.name in str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("Say {{ a }}.", "Say {{ a }}."),
        ("Say {{-a-}}.", "Say {{a}}."),
        ("{% raw %}{{x}} {%{% endraw %}: {{a}}", "{{x}} {%: {{a}}"),
        ('{{ "{" }}{% raw %}% raw %}{% endraw %}', "{% raw %}"),
        ("Say {% if a %}b{% endif %}.", None),
        ("Say {{ a | upper }}.", None),
        ("Say {a} or {{a}}.", None),
        ("Say {% raw %}{{a}}{% endraw %}.", None),
    ],
)
def test_a_prompt_means_what_promptfoo_renders_or_is_refused(
    tmp_path: Path, prompt: str, read: str | None
) -> None:
    tests = "tests: [{vars: {a: b}, assert: [{type: is-json}]}]"
    (tmp_path / "prompt.txt").write_text(prompt)
    path = config(tmp_path, f"prompts: file://prompt.txt\n{tests}")
    if read is not None:
        assert asked(path).prompt == read
        return
    with pytest.raises(DataError, match="the prompt holds"):
        asked(path)
    assert asked(path, "Be brief.").prompt == "Be brief."


def test_malformed_yaml_has_a_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not valid YAML"):
        load_config(config(tmp_path, "tests:\n - [a\n"), "{a}")


@pytest.mark.slow
def test_a_config_is_optimised_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the embedded models: rows are answered and scored by their assertions."""
    things = ("shop", "parcel", "card", "gift", "store", "order", "price", "shoe")
    rows = "".join(
        f"  - vars: {{thing: {thing}}}\n    assert: [{{type: icontains, value: {thing}}}]\n"
        for thing in things
    )
    config(tmp_path, "prompts: ['Say a word about the {{thing}}.']\ntests:\n" + rows)
    monkeypatch.chdir(tmp_path)
    flags = ["optimize", "promptfooconfig.yaml", "--max-calls", "30", "--run-dir", "run", "--plain"]
    done = CliRunner().invoke(main, flags)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "{{thing}}" in found["prompt"] and 0 < found["spend"]["calls"] <= 30
