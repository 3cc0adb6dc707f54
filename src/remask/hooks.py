"""How others follow a run: one function that hears each event, after it is durable."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from remask.budget import Spend
from remask.events import Event, State

Watcher = Callable[[Event, State, Spend], None]  # what happened, all so far, what was spent


def _ignore(event: Event, state: State, spend: Spend) -> None:
    """The watcher of runs that nobody watches."""


def _go_on() -> None:
    """The gate of runs that nobody interrupts."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """How a face follows and interrupts a run; neither can change what it does."""

    watch: Watcher = _ignore  # after each event is durable
    gate: Callable[[], None] = _go_on  # before each chunk of target calls; may raise to stop


def followed(hooks: Hooks | None, on_event: Watcher | None) -> Hooks:
    """The hooks, with one more watcher, which hears each event first: others may stop the run."""
    hooks = hooks or Hooks()
    if on_event is None:
        return hooks
    first, then = on_event, hooks.watch

    def watch(event: Event, state: State, spend: Spend) -> None:
        first(event, state, spend)
        then(event, state, spend)

    return replace(hooks, watch=watch)
