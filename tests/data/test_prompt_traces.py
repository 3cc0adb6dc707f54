"""Records to traces: score, desired response, feedback, and the short form of an agent's run."""

from remask.data.prompt_traces import traces_from_records
from remask.data.record_to_trace import condense, trace_from_record
from remask.data.trace_record import Rating, Record, Source, Turn
from remask.types import Feedback

SOURCE = Source("openai-chat", "a.jsonl", 1)
Q, A = Turn("user", "q"), Turn("assistant", "a")


def record(*ratings: Rating, turns: tuple[Turn, ...] = (Q, A), desired: str | None = None) -> Record:
    return Record("1", "s", turns, ratings, desired, SOURCE)


def test_desired_response_is_a_well_rated_response() -> None:
    good = trace_from_record(record(Rating("thumbs", True)), {})
    assert (good.query, good.response, good.desired, good.score) == ("q", "a", "a", 1.0)
    assert not good.failing
    bad = trace_from_record(record(Rating("thumbs", False)), {})
    assert (bad.desired, bad.score) == (None, 0.0) and bad.failing
    four = trace_from_record(record(Rating("stars", 4)), {"stars": (1, 5)})
    three = trace_from_record(record(Rating("stars", 3)), {"stars": (1, 5)})
    assert (four.desired, three.desired) == ("a", None)


def test_desired_response_is_first_of_all_a_correction() -> None:
    found = trace_from_record(record(Rating("r", True, correction="b"), desired="c"), {})
    assert found.desired == "b"
    assert found.feedback == (Feedback("correction", "b", 1.0),)
    assert trace_from_record(record(desired="c"), {}).desired == "c"


def test_feedback_keeps_labels_comments_and_scores() -> None:
    found = trace_from_record(
        record(
            Rating("tone", "rude", "human"), Rating("stars", 2, "human", "Too long."), Rating("thumbs", False)
        ),
        {},
    )
    assert found.feedback == (
        Feedback("label", "tone: rude", None),
        Feedback("comment", "Too long.", None),  # unknown scale: the comment stays, without a score
        Feedback("score", "", 0.0),
    )
    assert found.score == 0.0


def test_score_prefers_ratings_of_people() -> None:
    ratings = (Rating("judge", 1, "llm"), Rating("reward", 1, "reward"), Rating("u", 0, "human"))
    known = {name: (0.0, 1.0) for name in ("judge", "reward", "u")}
    assert trace_from_record(record(*ratings), known).score == 0.0
    assert trace_from_record(record(*ratings[:2]), known).score == 1.0
    two = (Rating("u", 0, "human"), Rating("v", True, "human"))
    assert trace_from_record(record(*two), known).score == 0.5
    assert trace_from_record(record(), known).score is None


def test_condense_keeps_the_first_and_the_last_message() -> None:
    turns = (Turn("user", "first"), A, Turn("user", "middle"), A, Turn("user", "last"), A)
    assert condense(turns) == ("first\n…\nlast", "a")
    assert condense((*turns, Turn("user", "bye"))) == ("first\n…\nlast", "a")
    query, response = condense((Turn("user", "w " * 5000), Turn("assistant", "v " * 5000)))
    assert len(query.split()) <= 151 and len(response.split()) <= 151
    assert query.endswith(" …")


def agent(*steps: tuple[str, str], end: str = "Done.") -> tuple[Turn, ...]:
    turns = [Turn("user", "Book it."), Turn("assistant", "Which?"), Turn("user", "The first.")]
    for call, answer in steps:
        turns += [Turn("assistant", call), Turn("tool", answer, call.split("(")[0])]
    return (*turns, Turn("assistant", end), Turn("user", "###STOP###"))


def test_condense_keeps_the_failed_call_of_an_agent() -> None:
    steps = (("look(id=1)", "{}"), ("book(id=2)", "Error: no seats"), ("look(id=3)", "{}"))
    query, response = condense(agent(*steps))
    assert query == "Book it.\n…\nThe first."
    assert response == "book(id=2)\nbook answered: Error: no seats\nDone."


def test_condense_keeps_the_last_call_without_a_failure() -> None:
    _, response = condense(agent(("look(id=1)", "{}"), ("book(id=2)", "ok " * 500)))
    assert response.startswith("book(id=2)\nbook answered: ok ok")
    assert response.endswith("…\nDone.") and len(response.split()) < 160


def test_trace_from_record_accepts_a_missing_response() -> None:
    found = trace_from_record(record(turns=(Q,), desired="b"), {})
    assert (found.query, found.response, found.desired) == ("q", "", "b")
    assert condense(()) == ("", "")


def test_traces_from_records_keep_the_order() -> None:
    found = traces_from_records([record(), record(Rating("t", True))], {}, str)
    assert [(trace.score, message) for trace, message in found] == [(None, "q"), (1.0, "q")]


def test_trace_from_record_uses_the_location_as_id() -> None:
    assert trace_from_record(Record("", None, (Q, A), (), None, SOURCE), {}).id == "a.jsonl:1"
    part = Source("tau2-bench", "folder/b.json", 1, "simulations[3]")
    assert trace_from_record(Record("", None, (Q, A), (), None, part), {}).id == "b.json:1:simulations[3]"
