"""A finished run directory without models: the search of worlds.py, played into a store.

Known answer: the prompt climbs from level 5 to level 10, and the test from 0.5 to 1.
"""

from pathlib import Path

import orjson

from fakes.worlds import LevelProposer, LevelTask
from remask.config import make_config
from remask.events import Event, State, Tested, advance, encode
from remask.prompt import Prompt
from remask.runs.budget import Spend
from remask.runs.outcomes import RecordingTask
from remask.runs.result import RESULT, Result, make_result
from remask.runs.store import Store
from remask.search.plan import SearchPlan
from remask.search.scores import rows_from_outcomes, run_final_test, search
from remask.types import Example

START = "Work at level 5."
PLAN = SearchPlan(candidates=6, rungs=(5, 5, 10), rounds=40, patience=6)


def record(prompt: str = START) -> dict[str, object]:
    values = {
        "prompt": prompt,
        "data": {"path": "rows.jsonl"},
        "target": {"model": "openai:m", "base_url": "http://user:secret@localhost:1/v1"},
    }
    return make_config(values, "test").model_dump(mode="json")


def list_examples(task: LevelTask) -> list[Example]:
    return [
        Example(id, split, f"question {id}", "right", place=f"rows.csv:{n}")
        for split in ("train", "validation", "test")
        for n, id in enumerate(task.ids(split), 2)
    ]


def play(folder: Path, prompt: str = START, rows: int = 40, finish: bool = True) -> Result | None:
    """Play a whole run into `folder`; without `finish` it stops before the sealed test."""
    task, start, state = LevelTask(rows), Prompt.parse(prompt), State()
    with Store.create(folder, record(prompt)) as store:
        outcomes = RecordingTask(task, store, lambda: list_examples(task), str)

        def keep(event: Event, state: State) -> State:
            store.append(encode(event))
            return advance(state, event)

        for event in search(state, start, PLAN, outcomes, LevelProposer(), 0):
            booked = store.get_spend().calls
            store.settle(
                store.reserve(Spend(calls=task.calls - booked), billed=True),
                Spend(calls=task.calls - booked, seconds=0.1),
                {},
            )
            state = keep(event, state)
        if not finish:
            return None
        before, after = run_final_test(outcomes, start, state.prompt(state.incumbent))
        state = keep(Tested(rows_from_outcomes(before), rows_from_outcomes(after)), state)
        queries = {row: f"question {row}" for row in task.ids("train")}
        result = make_result(
            state,
            {id: (text, "") for id, text in queries.items()},
            store.get_spend(),
            ["a <b>warning</b>"],
            str(folder),
        )
    (folder / RESULT).write_bytes(orjson.dumps(result.to_dict()))
    return result
