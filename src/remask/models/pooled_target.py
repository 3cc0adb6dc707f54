"""A target on this machine or in a file of the user, whose calls are made by workers."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from remask.ports import Executor, Item, Reply, TargetModel
from remask.types import Chat


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What the driver must know of a target that only workers load."""

    identity: str
    chooses: bool


class PooledTarget(TargetModel):
    """Implements ports.Parallel: each request is answered by one worker, which has the target."""

    def __init__(self, executor: Executor, role: str) -> None:
        """`role` names the model of the workers. Raises what loading it raises."""
        self._executor, self._role = executor, role
        facts: TargetFacts = executor.submit(Item(role, "describe")).result()
        self.identity, self.chooses = facts.identity, facts.chooses

    @property
    def workers(self) -> int:
        return self._executor.workers

    def start(self, method: str, *arguments: Any) -> Future[list[Reply]]:
        """See ports.Parallel."""
        return self._executor.submit(Item(self._role, method, arguments))

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        return self.start("respond", tuple(chats), repeat).result()

    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
        return self.start("choose", tuple(chats), tuple(options)).result()
