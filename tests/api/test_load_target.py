"""`remask.load_target`: a target that the caller asks without a run."""

import pytest

import remask
from fakes.server import Server, answer
from remask.errors import ConfigError
from remask.types import Message

CHAT = (Message("system", "Name the topic."), Message("user", "I cannot log in."))


def test_a_target_behind_an_endpoint_answers() -> None:
    with Server(default=answer("account")) as server:
        target = remask.load_target(remask.Target("openai:m", base_url=server.url))
        replies = target.respond([CHAT])
        target.close()
    assert [reply.text for reply in replies] == ["account"]
    assert not target.chooses


@pytest.mark.parametrize(
    ("target", "word"),
    [
        *(("", "unknown"), ("gpt-4.1", "unknown"), ("inspect:m", "names no model")),
        *((None, "NoneType"), (len, "a name")),
    ],
)
def test_a_wrong_target_is_one_clear_error(target: object, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        remask.load_target(target)  # type: ignore[arg-type]
