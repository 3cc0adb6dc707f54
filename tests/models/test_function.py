import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.chats import chats
from fakes.scripted_target import ScriptedTarget
from remask.errors import ConfigError, TargetBusy, TargetRefused
from remask.models.function import FunctionTarget
from remask.ports import Reply

Messages = list[dict[str, str]]


def shout(messages: Messages) -> str:
    return messages[-1]["content"].upper()


def test_function_gets_messages_and_answers_keep_their_order() -> None:
    seen: list[Messages] = []

    def keep(messages: Messages) -> str:
        seen.append(messages)
        return shout(messages)

    target = FunctionTarget(keep)
    assert target.respond(chats("a", "b")) == [Reply("A"), Reply("B")]
    assert seen[0] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}]
    assert target.billed and target.max_attempts == 1 and not target.chooses


def test_order_is_kept_under_concurrency() -> None:
    texts = [f"q{i}" for i in range(50)]
    replies = FunctionTarget(shout, concurrency=8).respond(chats(*texts))
    assert [reply.text for reply in replies] == [text.upper() for text in texts]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_exception_fails_its_row_alone(concurrency: int) -> None:
    def fails(messages: Messages) -> str:
        if messages[-1]["content"] == "busy":
            raise TargetBusy("try later")
        if messages[-1]["content"] == "odd":
            raise KeyError("answer")
        return "ok"

    replies = FunctionTarget(fails, concurrency=concurrency).respond(chats("x", "busy", "odd"))
    assert [reply.text for reply in replies] == ["ok", "", ""]
    assert [reply.error for reply in replies] == ["", "TargetBusy: try later", "KeyError: 'answer'"]


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("rows", [3, 40])
def test_same_bug_in_all_rows_is_a_config_error(rows: int, concurrency: int) -> None:
    def broken(messages: Messages) -> str:
        return messages[-1].text  # type: ignore[attr-defined]

    with pytest.raises(ConfigError, match=r"broken raised AttributeError: .*all \d+ calls") as caught:
        FunctionTarget(broken, concurrency=concurrency).respond(chats(*map(str, range(rows))))
    assert isinstance(caught.value.__cause__, AttributeError)


def test_bug_in_some_rows_or_an_outage_are_failed_rows() -> None:
    def some(messages: Messages) -> str:
        if messages[-1]["content"] == "a":
            raise TypeError("bad")
        return "ok"

    def outage(messages: Messages) -> str:
        raise ConnectionError("down")

    replies = FunctionTarget(some).respond(chats("a", "b"))
    assert [reply.error for reply in replies] == ["TypeError: bad", ""]
    replies = FunctionTarget(outage).respond(chats("a", "b"))
    assert [reply.error for reply in replies] == ["ConnectionError: down"] * 2
    assert FunctionTarget(outage).respond([]) == []


@pytest.mark.parametrize("concurrency", [1, 4])
def test_refusal_ends_the_run(concurrency: int) -> None:
    def refuses(messages: Messages) -> str:
        raise TargetRefused("the key is wrong")

    with pytest.raises(TargetRefused, match="the key is wrong"):
        FunctionTarget(refuses, concurrency=concurrency).respond(chats("a", "b"))


@pytest.mark.parametrize("result", [None, 3, b"text", {"text": "x"}])
def test_result_that_is_not_text_is_refused(result: object) -> None:
    with pytest.raises(ConfigError, match=f"returned {type(result).__name__} instead of the answer as str"):
        FunctionTarget(lambda messages: result).respond(chats("a"))  # type: ignore[arg-type]


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="not str"):
        FunctionTarget("openai:gpt")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="concurrency is 0"):
        FunctionTarget(shout, concurrency=0)


def load(path: Path, source: str) -> Callable[[Messages], str]:
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("mine", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.answer  # type: ignore[no-any-return]


def test_edited_function_has_another_identity(tmp_path: Path) -> None:
    source = "def answer(messages):\n    return 'yes'\n"
    first = FunctionTarget(load(tmp_path / "a.py", source)).identity
    again = FunctionTarget(load(tmp_path / "b.py", source)).identity
    edited = FunctionTarget(load(tmp_path / "c.py", source.replace("yes", "no"))).identity
    assert first == again != edited
    assert first.startswith("function:mine.answer:") and str(tmp_path) not in first


class Model:
    def __call__(self, messages: Messages) -> str:
        return "object"


def test_identity_is_stable_for_every_kind_of_callable() -> None:
    assert FunctionTarget(Model()).identity == FunctionTarget(Model()).identity
    assert "Model" in FunctionTarget(Model()).identity
    assert FunctionTarget(print).identity.endswith(":nosource")  # type: ignore[arg-type]
    bound = functools.partial(shout)
    assert FunctionTarget(bound).identity == FunctionTarget(shout).identity
    assert FunctionTarget(shout, name="mine").identity.startswith("function:mine:")


def test_scripted_target_counts_its_calls() -> None:
    target = ScriptedTarget(
        lambda chat: chat[-1].content.upper(), fail=lambda chat: "down" if chat[-1].content == "bad" else ""
    )
    good, bad = target.respond(chats("hi you", "bad"))
    assert good == Reply("HI YOU", input_tokens=4, output_tokens=2)
    assert (bad.text, bad.error) == ("", "down")
    assert target.calls == 2 and not target.chooses


def test_scripted_target_chooses_the_most_probable_option() -> None:
    target = ScriptedTarget(
        lambda chat: "free text",
        lambda chat, options: [-float(len(option)) for option in options],
        fail=lambda chat: "down" if chat[-1].content == "bad" else "",
    )
    (reply,) = target.choose(chats("q"), ["long", "no", "ok"])
    assert reply.text == "no" and reply.logps == (-4.0, -2.0, -2.0)
    assert target.choose(chats("bad"), ["a", "b"])[0].error == "down"
    assert target.respond(chats("q"))[0].text == "free text"
    assert target.calls == 3 and target.chooses
