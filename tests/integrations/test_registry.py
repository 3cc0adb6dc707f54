"""`remask export --register`: the best prompt as a version in a real registry of MLflow."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own, of pydantic, alembic and sqlite
mlflow = pytest.importorskip("mlflow")

from fakes.finished_run import play  # noqa: E402
from remask.cli import main  # noqa: E402
from remask.runs.report.summary import verdict_line  # noqa: E402


def remask(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="remask")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"


def test_the_best_prompt_of_a_run_becomes_a_version(uri: str, tmp_path: Path) -> None:
    result = play(tmp_path / "run")
    assert result is not None
    flags = ("--register", "desk", "--tracking-uri", uri)
    for version in (1, 2):
        done = remask("export", tmp_path / "run", *flags)
        assert done.stdout == f"registered prompts:/desk/{version} (mlflow)\n"
    client = mlflow.MlflowClient(uri, uri)
    made = client.get_prompt_version("desk", "2")
    assert made.template == result.prompt != result.baseline.prompt
    assert made.commit_message.endswith(verdict_line(result))
    assert made.aliases == []


def test_a_prompt_file_and_an_unfinished_run(uri: str, tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text("Be kind to {x}, {y}. {%\n")
    flags = ("--register", "kind", "--tracking-uri", uri)
    output = tmp_path / "p.j2"
    done = remask("export", tmp_path / "p.md", *flags, "-o", output, "--variable", "x")
    assert done.exit_code == 0, done.output
    assert output.read_text() == "Be kind to {{x}}{% raw %}, {y}. {%{% endraw %}\n"
    play(tmp_path / "run", finish=False)
    assert remask("export", tmp_path / "run", *flags).exit_code == 0
    client = mlflow.MlflowClient(uri, uri)
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
        (("--register", "a", "--marked"), "no file is named"),
        ((), "no file is named"),
    ],
)
def test_what_cannot_be_registered_is_one_sentence(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.md").write_text("Be kind.\n")
    done = remask("export", "p.md", *(flag.replace("{uri}", uri) for flag in flags))
    assert done.exit_code == 2 and words in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""
