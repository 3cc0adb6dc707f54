"""`remask init`: the files of a new project, which `remask check` finds ready."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.command import complaint, remask
from remask.cli.init import Answers, make_settings
from remask.config import FILE_KEYS, make_config

FILES = {"remask.toml", "prompt.md", "rows.jsonl"}


def test_the_defaults_write_a_project_that_check_finds_ready(tmp_path: Path) -> None:
    done = remask("init", tmp_path / "p", "--yes")
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "p").iterdir()} == FILES
    assert done.output.count("wrote ") == 3 and "next: remask check" in done.output
    rows = [json.loads(line) for line in (tmp_path / "p" / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 20 and {row["split"] for row in rows} == {"train", "validation", "test"}
    checked = remask("check", tmp_path / "p" / "remask.toml")
    assert checked.exit_code == 0 and "Ready." in checked.output, checked.output


def test_a_function_is_written_and_check_finds_it(tmp_path: Path) -> None:
    assert remask("init", tmp_path, "--target", "callable", "--yes").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "target.py"}
    checked = remask("check", tmp_path / "remask.toml")
    assert checked.exit_code == 0 and "target.py:respond: the function was found" in checked.output
    scored = remask("eval", tmp_path / "remask.toml", "--json")
    assert scored.exit_code == 0 and json.loads(scored.output)["score"]["n"] == 6


def test_an_endpoint_follows_from_its_model(tmp_path: Path) -> None:
    words = ("--base-url", "http://localhost:1/v1", "--model", 'odd "name"')
    assert remask("init", tmp_path, *words, "--yes").exit_code == 0
    values = tomllib.loads((tmp_path / "remask.toml").read_text())
    assert values["target"]["model"] == 'openai:odd "name"'
    assert values["target"]["base_url"] == "http://localhost:1/v1"


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("question,answer", "how {n}?,text {n}", ("{question}", "answer", "f1", None)),
        ("topic,Message,split", "t,hello {n},train", ("{Message}", "topic", "label", "split")),
        ("a,b", "one {n},x", ("{a}", "b", "label", None)),
    ],
)
def test_columns_of_own_data_are_guessed(
    tmp_path: Path, header: str, row: str, expected: tuple[str | None, ...]
) -> None:
    lines = [header, *(row.replace("{n}", str(n)) for n in range(60))]
    (tmp_path / "my rows.csv").write_text("\n".join(lines))
    done = remask("init", tmp_path / "p", "--data", tmp_path / "my rows.csv", "--yes")
    assert done.exit_code == 0, done.output
    values = tomllib.loads((tmp_path / "p" / "remask.toml").read_text())
    data = values["data"]
    assert (data["input"], data["expected"], values["metric"]["name"], data.get("split")) == expected
    assert data["path"] == "../my rows.csv"
    assert not (tmp_path / "p" / "rows.jsonl").exists()


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    assert f"{name} exists already" in complaint(remask("init", tmp_path, "--yes"))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "endpoint"], "give --model NAME"),
        (["--target", "builtin", "--model", "m"], "belong to an endpoint"),
        (["--data", "none.csv"], "none.csv"),
    ],
)
def test_wrong_options_are_one_sentence_and_write_nothing(
    tmp_path: Path, words: list[str], said: str
) -> None:
    assert said in complaint(remask("init", tmp_path / "p", *words, "--yes"))
    assert not (tmp_path / "p").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1), st.text())
def test_any_name_of_a_model_is_valid_toml(tmp_path: Path, model: str, url: str) -> None:
    try:
        (model + url).encode()
    except UnicodeEncodeError:
        return
    values = tomllib.loads(make_settings(tmp_path, Answers("endpoint", url, model, "")))
    assert values["target"]["model"] == f"openai:{model}"
    assert values["target"].get("base_url", "") == url
    kept = {key: value for key, value in values.items() if key not in FILE_KEYS}
    make_config({"prompt": "x", **kept}, "test")


@pytest.mark.slow
def test_the_sample_project_runs_offline_with_the_built_in_models(tmp_path: Path) -> None:
    assert remask("init", tmp_path, "--yes").exit_code == 0
    run = remask("optimize", tmp_path / "remask.toml", "--run-dir", tmp_path / "run")
    assert run.exit_code == 0, run.output
    assert "on 10 sealed test rows" in run.output
