"""Targets whose answers are a known function of the chat: the fakes of the test suite.

They know no model. They count their own calls, so that a test can hold a ledger against a number
that the ledger did not write.
"""

from collections.abc import Callable, Sequence

from remask.ports import Reply, TargetModel
from remask.types import Chat


class ScriptedTarget(TargetModel):
    """Answers each chat with `answer(chat)`, or fails with the sentence that `fail(chat)` gives.

    With `prefer` it can also choose: `prefer(chat, options)` gives one logp per option. `calls`
    counts the chats that were asked. Tokens are words, so that they are easy to predict.
    """

    def __init__(
        self,
        answer: Callable[[Chat], str],
        prefer: Callable[[Chat, Sequence[str]], Sequence[float]] | None = None,
        *,
        name: str = "scripted",
        billed: bool = False,
        fail: Callable[[Chat], str] | None = None,
    ) -> None:
        self.identity = f"scripted:{name}"
        self.billed = billed
        self.chooses = prefer is not None
        self.calls = 0
        self._answer = answer
        self._prefer = prefer
        self._fail = fail

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        return [self._reply(chat, self._answer, ()) for chat in chats]

    def _reply(self, chat: Chat, answer: Callable[[Chat], str], logps: tuple[float, ...]) -> Reply:
        self.calls += 1
        words = sum(len(message.content.split()) for message in chat)
        if self._fail is not None and (error := self._fail(chat)):
            return Reply("", error=error, input_tokens=words)
        text = answer(chat)
        return Reply(text, input_tokens=words, output_tokens=len(text.split()), logps=logps)

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
        return [self._choice(chat, options) for chat in chats]

    def _choice(self, chat: Chat, options: Sequence[str]) -> Reply:
        assert self._prefer is not None
        logps = tuple(float(logp) for logp in self._prefer(chat, options))
        best = options[max(range(len(options)), key=logps.__getitem__)]
        return self._reply(chat, lambda _: best, logps)
