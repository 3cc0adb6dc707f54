"""Calls of tools from rows to the score: over HTTP, with the real client and the example's agent."""

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import remask
from fakes import ROOT
from fakes.server import Body, Handler, Server, completion
from remask.api.build_task import make_dataset
from remask.cli import main
from remask.cli.settings import read
from remask.config import Config, make_config
from remask.data.places import write_places
from remask.errors import ConfigError, DataError

EXAMPLE = ROOT / "examples" / "tools"
BETTER = (
    "Says where a parcel is and when it will arrive: courier, tracking, delivery, delay, warehouse, depot, "
    "customs."
)
CALL = {"name": "find", "arguments": {"name": "Ann"}}
TOOL = {"name": "find", "description": "Find a person.", "inputSchema": {"type": "object", "properties": {}}}


def config(path: Path, **more: Any) -> Config:
    data = {"path": str(path), "input": "q", "expected": "call", **more.pop("data", {})}
    return make_config({"prompt": "Help.", "data": data, "metric": {"name": "tool_call"}, **more}, "test")


def load(path: Path, **more: Any) -> list[tuple[str, Any]]:
    found = make_dataset(config(path, **more)).examples
    return sorted((e.input, json.loads(e.expected or "")) for e in found)


def test_right_calls_are_read_from_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"q": "a", "call": CALL},
        {"q": "b", "call": json.dumps([CALL, CALL])},
        {"q": "c", "call": None},
        {"q": "d", "call": ""},
        {"q": "e", "call": 'find(name="Ann")'},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    one = {"tool_calls": [CALL]}
    assert load(path) == [("a", one), ("b", [CALL, CALL]), ("c", None), ("d", None), ("e", one)]
    table = tmp_path / "rows.csv"
    table.write_text('q,call\na,"{""name"": ""find"", ""arguments"": {""name"": ""Ann""}}"\nb,\n')
    assert load(table) == [("a", one), ("b", None)]


def test_chats_that_end_with_a_call_are_rows(tmp_path: Path) -> None:
    user = {"role": "user", "content": "Find Ann."}
    function = {"name": "find", "arguments": json.dumps(CALL["arguments"])}
    part = {"type": "tool_use", "id": "t", "name": "find", "input": CALL["arguments"]}
    answers = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": function}] * 2},
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, part]},
        {"role": "assistant", "content": "Which Ann?"},
    ]
    path = tmp_path / "rows.jsonl"
    chats = [[{"role": "system", "content": "Old."}, user, answer] for answer in answers]
    path.write_text("\n".join(json.dumps({"messages": chat}) for chat in chats))
    found = make_dataset(config(path, data={"input": "{input}", "expected": "label"})).examples
    wanted = [{"tool_calls": [CALL, CALL]}, {"tool_calls": [CALL]}, None]
    assert [json.loads(e.expected or "") for e in found] == wanted
    assert {e.input for e in found} == {"Find Ann."} and all(e.row == {} for e in found)
    path.write_text(json.dumps({"messages": [user]}) + "\n")
    with pytest.raises(
        DataError, match=r"rows\.jsonl:1: column 'label': the chat does not end with an answer"
    ):
        make_dataset(config(path, data={"input": "{input}", "expected": "label"}))


def test_wrong_right_calls_are_named_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"q": "a", "call": {"name": "find"}}\n{"q": "b", "call": "find"}\n{"q": "c", "call": 3}\n'
    )
    with pytest.raises(DataError) as caught:
        load(path)
    said = str(caught.value)
    assert (
        "2 rows cannot be used" in said and "line 2: column 'call': the right call 'find' is no JSON" in said
    )
    assert "line 3: column 'call': the right call 3 is no call of a tool" in said
    assert load(path, data={"skip_invalid": True}) == [
        ("a", {"tool_calls": [{"name": "find", "arguments": {}}]})
    ]


@pytest.mark.parametrize("model", ["openai:m", "inspect:openai-api/desk/m"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of inspect_evals
def test_tools_reach_the_server_and_its_calls_are_scored(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESK_API_KEY", "sk-test-0123456789")
    (tmp_path / "tools.json").write_text(json.dumps({"tools": [TOOL]}))

    def call(handler: Handler, body: Body) -> None:
        payload = completion(None, "tool_calls")
        name = body["messages"][-1]["content"].split()[-1]
        function = {"name": "find", "arguments": json.dumps({"name": name})}
        made = [{"id": "c", "type": "function", "function": function}] * (2 if name == "Eve" else 1)
        payload["choices"][0]["message"]["tool_calls"] = made
        handler.send(200, json.dumps(payload).encode())

    rows = [(f"Find {name}", json.dumps(CALL)) for name in ("Ann", "Bob", "Eve", "the Ann")]
    with Server(default=call) as server:
        target = remask.Target(model, base_url=server.url, extra={"tools": str(tmp_path / "tools.json")})
        found = remask.evaluate("Help.", {"validation": rows}, target=target, metric="tool_call")
    assert found.score.mean == pytest.approx((1 + 0.5 + 0.25 + 1) / 4)
    (sent,) = server.bodies[0]["tools"]
    assert sent["function"]["name"] == "find" and sent["function"]["description"] == "Find a person."


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the example whose settings name a server of this test."""
    monkeypatch.setattr(sys, "path", [str(EXAMPLE), *sys.path])
    import agent

    folder = tmp_path / "tools"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    with agent.make_server() as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        settings = folder / "remask.toml"
        settings.write_text(settings.read_text().replace(f"http://127.0.0.1:{agent.PORT}/v1", url))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield folder
        server.shutdown()
        thread.join()


def score(folder: Path) -> float:
    """The mean score of all rows of the example."""
    target = read(str(folder / "remask.toml"), {}).config.target
    asked = remask.Target(target.model, base_url=target.base_url, extra=target.extra)
    data = remask.Dataset({"validation": str(folder / "rows.jsonl")})
    return remask.evaluate("Help.", data, target=asked, metric="tool_call").score.mean


def test_the_example_depends_on_a_description(example: Path) -> None:
    assert score(example) == pytest.approx(0.673, abs=0.001)
    spec = {"tool:*": "tools.json"}
    write_places(spec, {"tool:track_parcel": BETTER}, example)
    assert score(example) == pytest.approx(0.915, abs=0.001)
    assert BETTER in (example / "README.md").read_text().replace("\n", " ")


def test_check_reads_the_example(example: Path) -> None:
    run = CliRunner().invoke(main, ["check", str(example / "remask.toml"), "--run-dir", str(example / "run")])
    assert run.exit_code == 0, run.output
    assert "62 rows" in run.output and "metric tool_call on the response" in run.output
    assert "warning: the target gets no tools" not in run.output


def test_check_finds_rows_and_tools_that_do_not_fit(example: Path) -> None:
    def check() -> str:
        made = CliRunner().invoke(
            main, ["check", str(example / "remask.toml"), "--run-dir", str(example / "run")]
        )
        return " ".join(made.output.split())

    tools = json.loads((example / "tools.json").read_text())
    (example / "tools.json").write_text(json.dumps(tools[:3]))
    said = check()
    assert "rows.jsonl:" in said and "'cancel_order', which target.extra.tools does not have" in said
    (example / "tools.json").write_text('[{"name": "a"}, {"name": "a"}]')
    with pytest.raises(DataError, match=r"tools\.json:1: two tools have the name 'a'; the other is /0"):
        read(str(example / "remask.toml"), {})
    settings = (example / "remask.toml").read_text()
    (example / "remask.toml").write_text(settings.replace('"tool:*" = "tools.json"', ""))
    assert "warning: the target gets no tools: set target.extra.tools" in check()


def test_a_run_stores_the_tools_and_not_their_place(example: Path) -> None:
    found = read(str(example / "remask.toml"), {}).config.target.extra["tools"]
    assert [tool["function"]["name"] for tool in found][:2] == ["order_details", "track_parcel"]
    with pytest.raises(ConfigError, match="no such file"):
        read(str(example / "remask.toml"), {"extra": ["tools=none.json"]})
