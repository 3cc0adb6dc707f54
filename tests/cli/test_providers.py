"""`--target inspect:PROVIDER/MODEL` on the command line, for rows, judge and denoiser: a whole run,
a killed one, `check`, and what is wrong with a name."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fakes.anthropic_server import message, to_openai
from fakes.command import complaint, remask
from fakes.http_run import World, finish, read_ledger, read_result, respond, start, write_job
from fakes.server import Body, Handler, Server, completion

# Of inspect_evals, which Inspect loads where it is installed.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

DESK = ("inspect:openai-api/desk/target", "inspect:openai-api/desk/denoiser")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_API_KEY", "sk-test-0123456789")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789")


def test_a_run_with_target_and_denoiser_of_inspect_is_that_of_the_plain_endpoint(tmp_path: Path) -> None:
    found = []
    for folder, models in (("plain", ("openai:target", "chat:denoiser")), ("inspect", DESK)):
        with Server(default=World()) as server:
            write_job(tmp_path / folder, server, models=models)
            assert finish(tmp_path / folder) == (0, "")
        found.append(read_result(tmp_path / folder))
    assert found[0]["spend"] == found[1]["spend"] and found[0]["test"] == found[1]["test"]
    assert found[0]["prompt"] == found[1]["prompt"]


def test_a_killed_run_pays_for_no_answer_twice(tmp_path: Path) -> None:
    world = World()
    with Server(default=world) as server:
        write_job(tmp_path, server, models=DESK)
        process = start(tmp_path)
        while process.poll() is None and world.answered < 60:
            time.sleep(0.001)
        process.kill()
        process.communicate()
        assert world.answered < 300, "killed in the middle"
        assert finish(tmp_path) == (0, "")
    assert world.repeated <= 8  # those in flight
    assert world.requests <= 600 + 8
    assert set(read_ledger(tmp_path)) <= {"settled", "uncertain"}


def test_a_whole_run_on_anthropic_is_metered_in_dollars(tmp_path: Path) -> None:
    pytest.importorskip("anthropic")
    asked: list[Body] = []

    def behave(handler: Handler, body: Body) -> None:
        asked.append(to_openai(body))
        message(respond)(handler, body)

    with Server(default=behave) as server:
        server.url = server.url.removesuffix("/v1")  # as the SDK of Anthropic wants it
        prices = "input_price = 100\noutput_price = 200"
        write_job(
            tmp_path, server, models=("inspect:anthropic/target", "inspect:anthropic/denoiser"),
            target=prices, denoiser=prices, budget="usd = 30",
        )  # fmt: skip
        done = remask("optimize", tmp_path / "remask.toml", "--run-dir", tmp_path / "run", "--plain")
        assert done.exit_code == 0, done.stderr
        spend = read_result(tmp_path)["spend"]
        assert spend["calls"] == server.requests and spend["input_tokens"] == 7 * server.requests
        assert spend["usd"] == pytest.approx(server.requests * (7 * 100 + 3 * 200) / 1e6)
    assert {body["model"] for body in asked} == {"target", "denoiser"}


def write_rows(folder: Path, expected: str = "") -> list[str]:
    """Words for a small command on rows."""
    splits = ["train", "validation", "test"] * 12
    rows = [
        {"input": f"message {n}", "label": expected or ("yes", "no")[n % 2], "split": split}
        for n, split in enumerate(splits)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "prompt.md").write_text("Answer the message. Be brief.")
    return [str(folder / "prompt.md"), *("--data", str(folder / "rows.jsonl"), "--split-column", "split")]


@pytest.fixture
def mock(monkeypatch: pytest.MonkeyPatch) -> str:
    """Inspect's mock provider, which counts tokens with a file from the network."""
    from inspect_ai.model import ModelAPI

    async def count(self: ModelAPI, text: str) -> int:
        return len(text.split())

    monkeypatch.setattr(ModelAPI, "count_text_tokens", count)
    return "Default output from mockllm/model"


def test_the_mock_provider_answers_a_whole_run(tmp_path: Path, mock: str) -> None:
    words = write_rows(tmp_path, mock)
    given = (*words, "--metric", "exact", "--target", "inspect:mockllm/model")
    checked = remask("check", *given, "--max-calls", 300)
    assert checked.exit_code == 0, checked.output
    assert "inspect:mockllm/model: the provider and a key were found" in checked.stdout
    done = remask("optimize", *given, "--max-calls", 300, "--run-dir", tmp_path / "run", "--plain")
    assert done.exit_code == 0, done.stderr
    assert "1.000" in done.stdout


def test_a_judge_of_inspect_scores_answers_of_another_server(tmp_path: Path) -> None:
    words = write_rows(tmp_path)

    def judge(handler: Handler, body: Body) -> None:
        assert body["model"] == "judge"
        handler.send(200, json.dumps(completion("SCORE: 10")).encode())

    with Server() as target, Server(default=judge) as other, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DESK_BASE_URL", other.url)
        done = remask(
            "eval", *words, "--target", "openai:m", "--base-url", target.url,
            "--judge", "inspect:openai-api/desk/judge", "--rubric", "It is kind.", "--split", "test",
        )  # fmt: skip
        assert done.exit_code == 0, done.stderr
        assert target.requests == other.requests == 12


def test_the_same_provider_judges_at_the_server_of_the_target(tmp_path: Path) -> None:
    words = write_rows(tmp_path)

    def behave(handler: Handler, body: Body) -> None:
        said = "SCORE: 10" if body["model"] == "judge" else "yes"
        handler.send(200, json.dumps(completion(said)).encode())

    with Server(default=behave) as server:
        done = remask(
            "eval", *words, "--target", "inspect:openai-api/desk/m", "--base-url", server.url,
            "--judge", "inspect:openai-api/desk/judge", "--rubric", "It is kind.", "--split", "test",
        )  # fmt: skip
        assert done.exit_code == 0, done.stderr
        assert server.requests == 24


@pytest.mark.slow
@pytest.mark.parametrize("target", ["openai:target", "inspect:openai-api/desk/target"])
def test_a_template_of_the_user_message_is_optimised(tmp_path: Path, target: str) -> None:
    """With data.role = "user" the prompt is the only message, with the row in it."""
    world = World()
    seen: list[list[dict[str, Any]]] = []

    def behave(handler: Handler, body: Body) -> None:
        if body["model"] == "denoiser":
            return world(handler, body)
        (only,) = body["messages"]
        seen.append(only)
        assert only["role"] == "user" and "item" in only["content"]
        # The world reads the words of the prompt in a first message.
        return world(handler, {**body, "messages": [only, only]})

    with Server(default=behave) as server:
        write_job(tmp_path, server, models=(target, "chat:denoiser"))
        (tmp_path / "prompt.md").write_text("Name it. Be brief.\n\n{{message}}\n")
        toml = (tmp_path / "remask.toml").read_text()
        (tmp_path / "remask.toml").write_text(toml.replace("[data]\n", '[data]\nrole = "user"\n'))
        assert finish(tmp_path) == (0, "")
        checked = remask("check", tmp_path / "remask.toml", "--run-dir", tmp_path / "new")
        assert checked.exit_code == 0, checked.output
    result = read_result(tmp_path)
    assert "{{message}}" in result["prompt"] and result["prompt"] != "Name it. Be brief.\n\n{{message}}"
    assert seen


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("inspect:nobody/m", "Inspect has no provider 'nobody'"),
        ("inspect:claude", "write inspect:PROVIDER/MODEL"),
        ("anthropic/claude", "inspect:PROVIDER/MODEL"),
        ("anthropic:claude", "inspect:PROVIDER/MODEL"),
        ("inspect:mistral/m", "pip install mistralai"),
    ],
)
def test_a_wrong_name_is_one_sentence_before_a_call(tmp_path: Path, target: str, words: str) -> None:
    given = write_rows(tmp_path)
    assert words in complaint(remask("optimize", *given, "--target", target, "--run-dir", tmp_path / "r"))
    assert not (tmp_path / "r").exists()
    assert words in remask("check", *given, "--target", target).stdout
    denoiser = remask("optimize", *given, "--denoiser", target, "--run-dir", tmp_path / "r")
    assert words in complaint(denoiser)
    judge = ("--judge", target, "--rubric", "Kind.")
    assert words in complaint(remask("eval", *given, *judge, "--split", "test"))


def test_arguments_of_a_provider_are_refused_for_other_models(tmp_path: Path) -> None:
    with Server() as server:
        write_job(tmp_path, server, target='model_args = {region_name = "eu-central-1"}')
        said = complaint(remask("optimize", tmp_path / "remask.toml", "--run-dir", tmp_path / "run"))
        assert "model_args is for inspect:PROVIDER/MODEL, not for openai:target; leave it out" in said
        assert server.requests == 0
