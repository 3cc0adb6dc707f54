"""`remask export`: formats by name and by flag, DSPy programs, promptfoo folders, prompt files."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fakes.command import complaint, remask
from fakes.finished_run import record
from remask.api.job import open_job
from remask.cli.settings import read
from remask.config import make_config
from remask.events import Started, encode
from remask.prompt import Prompt
from remask.runs.store import Store


def begin(folder: Path, settings: Mapping[str, Any], source: str) -> None:
    """A run that has begun: its first prompt is its best."""
    with Store.create(folder, settings) as store:
        store.append(encode(Started(source, Prompt.parse(source).id, 9)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    begin(folder, record(), "Be brief. [[keep]]Name {x}.[[/keep]]")
    return folder


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        ("p.md", (), "Name {x}.\n"),
        ("p.md", ("--marked",), "[[keep]]Name {x}.[[/keep]]\n"),
        ("p.md", ("--format", "f-string", "--variable", "y"), "Name {{x}}.\n"),
        ("p.j2", (), "Name {{x}}.\n"),
        ("p.json", (), "Name {x}."),
        ("p.langfuse.json", (), "Name {{x}}."),
        ("p.mlflow.json", ("--name", "other"), '"name": "other"'),
        ("p.json", ("--format", "langfuse"), '"name": "p"'),
    ],
)
def test_export_writes_the_best_prompt_in_any_format(
    run: Path, tmp_path: Path, name: str, flags: tuple[str, ...], expected: str
) -> None:
    result = remask("export", run, "-o", tmp_path / name, *flags)
    assert result.exit_code == 0, result.output
    assert expected in (tmp_path / name).read_text()
    assert "Be brief. " in (tmp_path / name).read_text()


def test_export_converts_prompt_files_between_tools(tmp_path: Path) -> None:
    names = ["a.md", "a.langfuse.json", "a.mlflow.json", "a.j2", "a.json", "b.md"]
    (tmp_path / "a.md").write_text('Give {"k": 1} for {{x}}.\n')
    for before, after in pairwise(names):
        assert remask("export", tmp_path / before, "-o", tmp_path / after).exit_code == 0
    assert (tmp_path / "b.md").read_text() == (tmp_path / "a.md").read_text()


def test_export_changes_a_dspy_program_in_place(run: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.json"
    source = {"p": {"demos": [1.0], "signature": {"instructions": "old", "fields": []}}}
    program.write_text(json.dumps(source, indent=3))
    args = ("export", run, "-o", program, "--program", program)
    assert "--force" in complaint(remask(*args))
    assert remask(*args, "--force").exit_code == 0
    changed = json.loads(program.read_text())
    assert changed["p"]["signature"].pop("instructions").endswith("Name {x}.")
    assert program.read_text().startswith('{\n   "p": {\n      "demos": [\n         1.0')


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--format", "dspy"), "needs --program"),
        (("--format", "text", "--marked"), "exclude each other"),
        (("--format", "text", "--program", "p.json"), "exclude each other"),
        (("--program", "no such file"), "cannot be read"),
        (("--format", "promptfoo"), "promptfooconfig.yaml"),
    ],
)
def test_export_refuses_options_that_exclude_each_other(
    run: Path, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    assert message in complaint(remask("export", run, "-o", tmp_path / "p.md", *flags))
    assert list(tmp_path.iterdir()) == []


def run_of_texts(folder: Path, target: str) -> Path:
    """A run in `folder` whose rows are in the file that is returned."""
    rows = [
        {"text": f"{s} {n}", "label": ("red", "blue")[n % 2], "split": s}
        for s in ("train", "validation", "test")
        for n in range(4)
    ]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "prompt": "Name it.",
        "data": {"path": str(data), "input": "text", "split": "split"},
        "target": {"model": target},
    }
    with open_job(make_config(values, "test")) as job:
        begin(folder / "run", job.record, "Name it.")
    return data


def test_export_writes_the_test_rows_to_a_promptfoo_folder(tmp_path: Path) -> None:
    data = run_of_texts(tmp_path, "openai:tiny")
    config = tmp_path / "check" / "promptfooconfig.yaml"
    args = ("export", tmp_path / "run", "-o", config)
    result = remask(*args)
    assert result.exit_code == 0, result.output
    assert "4 test rows" in result.stdout
    tests = json.loads((config.parent / "tests.json").read_text())
    assert [test["vars"]["user_message"] for test in tests] == [f"test {n}" for n in range(4)]
    assert "exists already" in complaint(remask(*args))
    data.write_text(data.read_text().replace("test 1", "test one"))
    assert "has changed since" in complaint(remask(*args, "--force"))


def test_export_to_promptfoo_refuses_the_builtin_target(tmp_path: Path) -> None:
    run_of_texts(tmp_path, "builtin")
    config = tmp_path / "check" / "promptfooconfig.yaml"
    said = complaint(remask("export", tmp_path / "run", "-o", config))
    assert "cannot call the target 'builtin'" in said
    assert not config.parent.exists()


TESTS = """tests:
  - {vars: {thing: rose, split: train}, assert: [{type: equals, value: red}]}
  - {vars: {thing: sky, split: validation}, assert: [{type: equals, value: blue}]}
  - vars: {thing: snow, split: test}
    assert:
      - {type: icontains, value: white}
      - {type: contains, value: "{% raw %}{%{% endraw %}"}
"""


@pytest.mark.parametrize("role", ["system", "user"])
def test_export_to_promptfoo_keeps_the_assertions_of_the_run(tmp_path: Path, role: str) -> None:
    source = tmp_path / "promptfooconfig.yaml"
    source.write_text(TESTS)
    prompt = tmp_path / "prompt.md"
    prompt.write_text("The colour of {{thing}}.")
    flags = {"data": str(source), "input": "thing", "split_column": "split", "target": "openai:t"}
    made = read(str(prompt), flags).config
    config = made.model_copy(update={"data": made.data.model_copy(update={"role": role})})
    with open_job(config) as job:
        begin(tmp_path / "run", job.record, config.prompt)
    made_file = tmp_path / "check" / source.name
    assert remask("export", tmp_path / "run", "-o", made_file).exit_code == 0
    chat = json.loads((made_file.parent / "after.json").read_text())
    assert chat[0] == {"role": role, "content": config.prompt}
    (test,) = json.loads((made_file.parent / "tests.json").read_text())
    assert test["vars"]["thing"] == "snow"
    assert test["assert"] == [
        {"type": "icontains", "value": "white"},
        {"type": "contains", "value": "{% raw %}{%{% endraw %}"},
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", "input,label\na,b\n"),
        ("rows.jsonl", '{"input": "a", "label": "b"}\n'),
        ("rows.txt", '{"input": "a"}\n{"input": "b"}\n'),
        ("rows.md", '[{"input": "a"}, {"input": "b"}]'),
    ],
)
def test_export_refuses_a_file_of_rows(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    said = complaint(remask("export", tmp_path / name, "-o", tmp_path / "p.md"))
    assert said.endswith(f"{name}: this file holds rows, not a prompt; name a text file such as prompt.md")
    assert not (tmp_path / "p.md").exists()
