"""remask's search around any Proposer: what remask and its controls have in common."""

from collections.abc import Callable

from harness.lab import Lab
from remask.events import Accepted, State, advance
from remask.ports import Proposer
from remask.search import Plan, make_plan, search


def search_with(
    lab: Lab, proposer: Proposer, seed: int, planned: Callable[[Plan], Plan] = lambda plan: plan
) -> None:
    """remask's own plan, or what `planned` makes of it; each accepted prompt is reported.

    seed: of all that search and proposer draw."""
    rows = [len(lab.task.ids(split)) for split in ("train", "validation")]
    plan = planned(make_plan(lab.cap, *rows))
    state = State()
    for event in search(state, lab.start, plan, lab.task, proposer, seed):
        state = advance(state, event)
        if isinstance(event, Accepted):
            lab.report(state.prompt(event.id).text)
