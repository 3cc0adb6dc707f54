"""remask's search around any Proposer: what remask and its controls have in common."""

from benchmarks.search.lab import Lab
from remask.events import Accepted, State, advance
from remask.ports import Proposer
from remask.search import make_plan, search


def search_with(lab: Lab, proposer: Proposer, seed: int) -> None:
    """remask's own plan; each accepted prompt is reported. seed: of all that is drawn."""
    rows = [len(lab.task.ids(split)) for split in ("train", "validation")]
    plan, state = make_plan(lab.cap, *rows), State()
    for event in search(state, lab.start, plan, lab.task, proposer, seed):
        state = advance(state, event)
        if isinstance(event, Accepted):
            lab.report(state.prompt(event.id).text)
