"""A run with many events and candidates, written in one go, and a run that goes on."""

import time
from collections.abc import Iterator
from pathlib import Path

from fakes.finished_run import record
from remask.events import Accepted, Event, Proposed, RoundRejected, Scored, Started, encode
from remask.prompt import Prompt
from remask.runs.budget import Spend
from remask.runs.store import Store

START = "Answer the question of the customer. Be brief. Name the article of the policy. " * 4
TRAIN, VALIDATION = 5, 40
PER_ROUND = 40


def list_events(candidates: int, start: str = START) -> Iterator[Event]:
    """Yield the events of a run: rounds of 40 candidates, of which every fifth round accepts one."""
    parent = Prompt.parse(start)
    yield Started(start, parent.id, 80)
    yield Scored(0, parent.id, "validation", score_rows("validation", VALIDATION, 8))
    for number in range(candidates):
        round, place = divmod(number, PER_ROUND)
        text = f"{parent.text} Rule {number}: say the number {number} first."
        prompt = Prompt.parse(text)
        edit = (len(parent.text), len(parent.text), text[len(parent.text) :])
        yield Proposed(
            round, prompt.id, parent.id, text, 90, "insert", ((edit[0], edit[1], 9),), (edit,), ("t1",), -1.5
        )
        if place == PER_ROUND - 1:
            right = 8 + min(30, round // 5)
            yield Scored(round, prompt.id, "train", score_rows("train", TRAIN, 4))
            yield Scored(round, prompt.id, "validation", score_rows("validation", VALIDATION, right))
            if round % 5 == 4:
                yield Accepted(round, prompt.id, parent.id, 1 / VALIDATION, ("train-1",))
                parent = Prompt.parse(f"{START} Rule {number}: say the number {number} first.")
                if parent.id != prompt.id:
                    parent = prompt
            else:
                yield RoundRejected(round, "the winner was not better on the validation rows")


def score_rows(split: str, rows: int, right: int) -> tuple[tuple[str, float | None, float | None], ...]:
    return tuple((f"{split}-{i}", float(i < right), float(i < right)) for i in range(rows))


def write_large_run(folder: Path, candidates: int, start: str = START) -> int:
    """Write an unfinished run; return the number of its events."""
    count = 0
    with Store.create(folder, record(start)) as store, store.group():
        for event in list_events(candidates, start):
            cost = Spend(calls=3, input_tokens=300, output_tokens=40, seconds=0.1)
            count += store.append(encode(event), cost)
    return count


def append_slowly(folder: Path, candidates: int, pause: float) -> None:
    """Write a run event by event, as a run that goes on does."""
    with Store.create(folder, record(START)) as store:
        for event in list_events(candidates):
            store.append(encode(event), Spend(calls=3, seconds=0.1))
            time.sleep(pause)
