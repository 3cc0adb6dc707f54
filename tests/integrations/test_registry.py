"""`remask export --register`: the best prompt as a version in a real registry of MLflow."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own, of pydantic, alembic and sqlite
mlflow = pytest.importorskip("mlflow")

from fakes.command import remask  # noqa: E402
from fakes.finished_run import play  # noqa: E402
from remask.runs.report.summary import format_verdict  # noqa: E402


def test_export_registers_the_best_prompt_as_a_version(mlflow_uri: str, tmp_path: Path) -> None:
    result = play(tmp_path / "run")
    assert result is not None
    flags = ("--register", "desk", "--tracking-uri", mlflow_uri)
    for version in (1, 2):
        done = remask("export", tmp_path / "run", *flags)
        assert done.stdout == f"registered prompts:/desk/{version} (mlflow)\n"
    client = mlflow.MlflowClient(mlflow_uri, mlflow_uri)
    made = client.get_prompt_version("desk", "2")
    assert made.template == result.prompt != result.baseline.prompt
    assert made.commit_message.endswith(format_verdict(result))
    assert made.aliases == []


def test_export_registers_prompt_files_and_unfinished_runs(mlflow_uri: str, tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text("Be kind to {x}, {y}. {%\n")
    flags = ("--register", "kind", "--tracking-uri", mlflow_uri)
    output = tmp_path / "p.j2"
    done = remask("export", tmp_path / "p.md", *flags, "-o", output, "--variable", "x")
    assert done.exit_code == 0, done.output
    assert output.read_text() == "Be kind to {{x}}{% raw %}, {y}. {%{% endraw %}\n"
    play(tmp_path / "run", finish=False)
    assert remask("export", tmp_path / "run", *flags).exit_code == 0
    client = mlflow.MlflowClient(mlflow_uri, mlflow_uri)
    assert client.get_prompt_version("kind", "1").format(x="Ann") == "Be kind to Ann, {y}. {%"
    assert "not tested" in client.get_prompt_version("kind", "2").commit_message


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--register", "a/b", "--tracking-uri", "{uri}"), "did not register the prompt 'a/b'"),
        (("--register", "a", "--tracking-uri", "nonsense://x"), "MLflow at nonsense://x did not"),
        (("--register", "a", "--tracking-uri", "sqlite:///p.md"), "did not register"),
        (("--register", "a", "--tracking-uri", "sqlite:///p.md/x.db"), "did not register"),
        (("--tracking-uri", "{uri}"), "--register NAME; give both"),
        (("--register", "a", "--marked"), "no output is given"),
        ((), "no output is given"),
    ],
)
def test_export_names_what_cannot_be_registered(
    mlflow_uri: str, here: Path, flags: tuple[str, ...], words: str
) -> None:
    (here / "p.md").write_text("Be kind.\n")
    done = remask("export", "p.md", *(flag.replace("{uri}", mlflow_uri) for flag in flags))
    assert done.exit_code == 2 and words in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""
