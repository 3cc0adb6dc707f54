"""Of very many conversations some are drawn: by a seed, the failing ones and the others apart, and the
same for any number of workers."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import ENV, write_lines
from fakes.command import complaint, remask
from remask.api.worker import make_readers
from remask.data import draw_traces, trace_reader
from remask.data.draw_traces import RecordKey, Strata, limit_sources
from remask.data.part_reader import PartReader, count_records, fetch_records
from remask.data.prompt_traces import TraceCollection, read_traces
from remask.errors import DataError
from remask.ports import Executor, Item
from remask.propose.failure_modes import group_failures

REASONS = (
    "The price of the delivery is missing.", "Far too long, nobody reads six paragraphs.",
    "Rude tone towards our oldest customers!",
)  # fmt: skip
FEW = 20  # traces that are drawn here


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw_traces, "MAX_TRACES", FEW)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_reader, "PART_BYTES", 2000)


def chat(n: int, fails: bool, **more: Any) -> dict[str, Any]:
    text = f"order {n} of user{n}@example.com"
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": f"answer {n % 7}"}]
    note = {"name": "thumbs", "value": not fails, "kind": "human"}
    why = {"comment": REASONS[n % 3]} if fails else {}
    return {"id": f"c{n}", "messages": messages, "feedback": [note | why], **more}


def write_chats(folder: Path, failing: int, others: int) -> Path:
    rows = [chat(n, n < failing) for n in range(failing + others)]
    rows.sort(key=lambda row: orjson.dumps(row["messages"])[::-1])
    return write_lines(folder / "log.jsonl", *rows)


# --- the draw


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("abcdefgh")), max_size=40),
    st.lists(st.integers(0, 40), max_size=5), st.integers(1, 5).map(lambda n: 2 * n), st.booleans(),
)  # fmt: skip
def test_any_parts_with_any_bounds_draw_the_same(
    rows: list[tuple[bool, str]], cuts: list[int], most: int, bounded: bool
) -> None:
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    before, draw_traces.MAX_TRACES = draw_traces.MAX_TRACES, most
    try:
        found, kept = Strata(), 0
        for part, start in enumerate(edges[:-1]):
            drawn = Strata.below(found.bounds if bounded else ("", ""))
            for place, (failing, hash) in enumerate(rows[start : edges[part + 1]]):
                (drawn.failing if failing else drawn.rest).add(RecordKey(hash, part, place, ""))
            found.merge(drawn)
            kept = max(kept, len(drawn.failing.kept), len(found.failing.kept))
        chosen, note = found.choose(0)
    finally:
        draw_traces.MAX_TRACES = before
    numbered = {
        (part, place): rows[start + place]
        for part, start in enumerate(edges[:-1])
        for place in range(edges[part + 1] - start)
    }
    counts = Counter(failing for failing, _ in rows)
    take = min(counts[True], max(most // 2, most - counts[False]))
    expected = [
        sorted((hash, *at) for at, (failing, hash) in numbered.items() if failing == kind)[:number]
        for kind, number in ((True, take), (False, most - take))
    ]
    assert [tuple(one)[:3] for one in chosen] == sorted([*expected[0], *expected[1]])
    assert kept <= 2 * most and len(chosen) == min(most, len(rows))
    assert bool(note) == (len(rows) > most)


def test_what_a_stratum_leaves_goes_to_the_other(tmp_path: Path, few: None) -> None:
    for failing, others, expected in ((30, 60, (10, 10)), (3, 90, (3, 17)), (90, 4, (16, 4)), (5, 15, None)):
        found = read_traces("Help.", [write_chats(tmp_path, failing, others)])
        assert len(found.traces) == FEW
        drawn = sum(trace.failing for trace in found.traces)
        notes = [note for note in found.notes if note.startswith("drawn")]
        if expected is None:
            assert not notes and drawn == failing
            continue
        assert (drawn, FEW - drawn) == expected
        assert notes == [
            f"drawn with seed 0: {drawn} of {failing} failing conversations and "
            f"{FEW - drawn} of {others} others"
        ]
        assert (found.records, found.elsewhere) == (failing + others, 0)


def test_another_seed_draws_others_and_the_order_of_the_files_none(tmp_path: Path, few: None) -> None:
    path = write_chats(tmp_path, 50, 50)

    def draw(seed: int) -> set[str]:
        return {trace.id for trace in read_traces("Help.", [path], seed=seed).traces}

    first = draw(0)
    assert len(first & draw(1)) < FEW / 2
    path.write_bytes(b"".join(reversed(path.read_bytes().splitlines(keepends=True))))
    assert draw(0) == first


def test_only_what_is_drawn_is_redacted_in_the_order_of_the_files(tmp_path: Path, few: None) -> None:
    found = read_traces("Help.", [write_chats(tmp_path, 40, 40)])
    assert found.secrets == {"EMAIL": FEW}
    assert [f"<EMAIL_{n}>" in trace.query for n, trace in enumerate(found.traces, 1)] == [True] * FEW


def test_a_number_is_redacted_before_its_text_is_clipped(tmp_path: Path, few: None) -> None:
    """Of a card number at the limit of words the first half would be left."""
    text = "word " * 148 + "4111 1111 1111 1111 please"
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "a"}]
    rows = [{"id": f"{n}", "messages": messages} for n in range(30)]
    found = read_traces("Help.", [write_lines(tmp_path / "a.jsonl", *rows)])
    assert len(found.traces) == FEW and "4111" not in repr(found) and "<CARD_1>" in repr(found)


def test_of_many_sources_the_first_drawn_ones_are_kept() -> None:
    keys = [RecordKey(f"{n:03}", 0, n, "loud" if n % 2 else f"s{n}") for n in range(400)]
    kept, dropped = limit_sources(keys)
    assert [one.hash for one in kept if one.source == "loud"] == ["001", "003", "005", "007"]
    assert dropped == 196


# --- workers


@pytest.fixture(scope="module")
def pools() -> Iterator[list[Executor]]:
    made = [make_readers(count) for count in (1, 2)]
    yield made
    for pool in made:
        pool.close()


def test_any_number_of_workers_finds_the_same(
    tmp_path: Path, few: None, small_parts: None, pools: list[Executor]
) -> None:
    path = write_chats(tmp_path, 60, 90)
    with path.open("ab") as file:
        file.write(b'{"broken\n\n' + orjson.dumps(chat(900, True)) + b"\n" + orjson.dumps(chat(901, False)))
    compressed = write_lines(tmp_path / "more.jsonl", *[chat(n, n % 2 == 0) for n in range(200, 230)])
    assert len(list(trace_reader.make_parts([path, compressed]))) > 10
    results: list[TraceCollection] = []
    for pool in (None, *pools):
        _, overview = count_records([path, compressed], {}, pool)
        assert (overview.records, overview.rejected, overview.first_rejects[0].line) == (182, 1, 151)
        results.append(read_traces("Help.", [path, compressed], seed=3, executor=pool))
    assert results[0] == results[1] == results[2]
    modes = [group_failures(result.traces).mode_of for result in results]
    assert modes[0] == modes[1] == modes[2] and len(set(modes[0].values())) > 1


class Recorder:
    """An executor that does items in this process and says how many wait."""

    workers = 2

    def __init__(self, here: bool = True) -> None:
        self.here, self.most, self.waiting, self.items = here, 0, 0, 0
        self._reader = PartReader()

    def submit(self, item: Item, again: bool = True) -> "Future[Any]":
        self.items += 1
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        recorder = self

        class Answer(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                recorder.waiting -= 1
                return super().result(timeout)

        future = Answer()
        found = getattr(self._reader, item.method)(*item.arguments)
        future.set_result(found if self.here else None)
        return future

    def close(self) -> None:
        pass


def test_few_items_wait_and_what_a_worker_lacks_is_read_here(
    tmp_path: Path, few: None, small_parts: None, pools: list[Executor]
) -> None:
    path = write_chats(tmp_path, 60, 90)
    expected = read_traces("Help.", [path], executor=pools[1])
    for here in (True, False):
        recorder = Recorder(here)
        assert read_traces("Help.", [path], executor=recorder) == expected
        assert recorder.items > 20 and recorder.most <= 4 and not recorder.waiting


def test_a_small_file_starts_no_worker(tmp_path: Path) -> None:
    recorder = Recorder()
    assert len(read_traces("Help.", [write_chats(tmp_path, 3, 3)], executor=recorder).traces) == 6
    assert not recorder.items


def test_a_file_that_changes_between_two_readings_is_named(tmp_path: Path, small_parts: None) -> None:
    path = write_chats(tmp_path, 10, 10)
    parts, _ = count_records([path], {})
    drawn = [RecordKey("", 1, 3, "")]
    assert len(list(fetch_records(parts, {}, drawn))) == 1
    path.write_text("{}\n")
    with pytest.raises(DataError, match=r"log\.jsonl: was changed while it was read"):
        list(fetch_records(parts, {}, drawn))


def test_a_worker_that_only_reads_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from remask.api.worker import Worker, WorkerSettings; from remask.config import *;"
        "from remask.data.trace_reader import make_parts; from remask.ports import Item;"
        "from pathlib import Path;"
        "worker = Worker(WorkerSettings(0, '.', TargetConfig(), DenoiserConfig()));"
        "(part,) = make_parts([Path(sys.argv[1])]);"
        "found, _ = worker(Item('reader', 'count', (part, {}, 0)));"
        "print(found.records, 'torch' in sys.modules)"
    )
    path = write_chats(tmp_path, 3, 4)
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=ENV, capture_output=True, text=True)
    assert done.stdout == "7 False\n", done.stderr


def test_the_command_counts_the_same_with_workers(here: Path) -> None:
    line = json.dumps(chat(1, True) | {"padding": "x" * 4000}) + "\n"
    (here / "log.jsonl").write_text(line * 9000 + "broken\n")
    alone = remask("traces", "inspect", "log.jsonl", "--json")
    both = remask("traces", "inspect", "log.jsonl", "--json", "--workers", "2")
    assert alone.stdout == both.stdout and json.loads(both.stdout)["rejects"][0]["line"] == 9001
    said = complaint(remask("traces", "inspect", "log.jsonl", "--workers", "0"))
    assert "--workers (run.workers) is 0, but must be at least 1" in said
