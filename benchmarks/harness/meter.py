"""The hard cap on target calls, counted where no optimiser can pass by.

An optimiser never holds the target itself: it gets a task around `Counted`. An equal chat within
one run is answered from memory and costs nothing, for every optimiser alike.
"""

from collections.abc import Callable, Sequence

from remask.errors import BudgetSpent
from remask.identity import content_id
from remask.ports import Reply, Target
from remask.trace import Chat


class Counted(Target):
    """A Target that refuses (BudgetSpent) what would pass `cap` calls.

    The memory belongs to one run: no answer of another optimiser makes a call free.
    """

    def __init__(self, target: Target, cap: int) -> None:
        self.identity, self.cap, self._spent = target.identity, cap, 0
        self.chooses, self._memory = target.chooses, dict[str, Reply]()
        # Its bound methods alone: there is no attribute to reach the target by.
        self._choose, self._respond = target.choose, target.respond

    @property
    def spent(self) -> int:
        return self._spent

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        return self._counted(chats, ("respond", repeat), lambda new: self._respond(new, repeat))

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
        return self._counted(chats, ("choose", *options), lambda new: self._choose(new, options))

    def _counted(
        self,
        chats: Sequence[Chat],
        kind: tuple[str | int, ...],
        ask: Callable[[list[Chat]], list[Reply]],
    ) -> list[Reply]:
        keys = [content_id("call", *kind, [[m.role, m.content] for m in chat]) for chat in chats]
        new = {k: c for k, c in zip(keys, chats, strict=True) if k not in self._memory}
        if self._spent + len(new) > self.cap:
            raise BudgetSpent(f"{self._spent} of {self.cap} calls used, {len(new)} more asked")
        self._spent += len(new)  # before the call: one that fails was made all the same
        for key, reply in zip(new, ask(list(new.values())) if new else [], strict=True):
            self._memory[key] = reply
        return [self._memory[key] for key in keys]
