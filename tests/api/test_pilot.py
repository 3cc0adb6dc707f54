"""`remask.pilot`: what it asks, what it says, and what it must not touch."""

from pathlib import Path
from typing import Any

import pytest

import remask
from remask.errors import BudgetSpent, ConfigError, TargetUnreliable
from remask.ids import rng_for

LABELS = ("positive", "negative")
SPLITS = ("train", "validation", "test")
ROWS = [{"input": f"row {i}.", "label": LABELS[i % 2], "split": SPLITS[i // 2 % 3]} for i in range(300)]
TRAIN = {row["input"] for row in ROWS if row["split"] == "train"}
WORDS = {"What a great": "positive", "What an awful": "negative"}
THINGS = ("film", "book", "meal", "day", "game", "song", "trip", "show", "play", "shop", "park", "team")


class Knowing:
    """Knows the label of each row. Says it alone only where the prompt names the labels."""

    def __init__(self, needs: str = "", noise: float = 0.0, wrong: float = 0.2) -> None:
        self.needs, self.noise, self.wrong = needs, noise, wrong
        self.asked: list[str] = []
        self.rng = rng_for(0, "knowing")

    def __call__(self, messages: list[dict[str, str]]) -> str:
        row = messages[-1]["content"]
        self.asked.append(row)
        prompt = messages[0]["content"] if len(messages) > 1 else ""
        if self.needs not in prompt:
            return "I have no opinion."
        number = int(row.split()[1].rstrip("."))
        right = number % 2 if number % 10 < 10 * (1 - self.wrong) else 1 - number % 2
        return LABELS[right if self.rng.random() >= self.noise else 1 - right]


def ask(target: Any, rows: Any = ROWS, **more: Any) -> remask.Pilot:
    data = remask.Dataset(rows, split="split")
    return remask.pilot("Sort the message. Be kind.", data, target=target, progress=False, **more)


def test_pilot_finds_that_prompts_matter_where_labels_must_be_named() -> None:
    found = ask(Knowing(needs="negative, positive"))
    assert found.matters and found.spread.p < 0.001 and found.spread.low > 0.3
    assert [prompt.name for prompt in found.prompts if prompt.score.mean > 0] == ["names the labels"]
    said = "\n".join(found.describe())
    assert "Prompts matter here: " in said and "at most 5 % of pilots" in said
    assert "200 of 240 answers name no label" in said


def test_pilot_finds_no_evidence_where_the_target_ignores_the_prompt() -> None:
    found = ask(Knowing())
    assert not found.matters and found.spread.range == 0 and found.changed is not None
    assert found.changed.mean == 0
    said = "\n".join(found.describe())
    assert "No prompt made a difference: each of 40 rows got the same score under each prompt; " in said
    assert "The true distance" not in said  # rows that are all alike say nothing of chance


def test_noisy_answers_alone_are_no_evidence() -> None:
    found = ask(Knowing(noise=0.3))
    assert not found.matters and found.spread.range > 0
    assert found.changed is not None and 0.1 < found.changed.mean < 0.8 and found.changed.n == 20
    said = "\n".join(found.describe())
    assert "Answers are noisy: metric.repeats = 3" in said
    assert "The sealed test of 100 rows shows a true gain with a probability of" in said


def test_a_target_that_gets_nothing_right_is_told_so() -> None:
    said = "\n".join(ask(Knowing(needs="no prompt has these words")).describe())
    assert "each of 40 rows got the score 0; check the metric and the right answers" in said
    assert "The sealed test of" not in said


def test_pilot_asks_only_train_rows_and_counts_its_calls() -> None:
    target = Knowing()
    found = ask(target, rows=ROWS)
    assert set(target.asked) <= TRAIN
    assert len(target.asked) == found.spend.calls == 6 * 40 + 20
    small = ask(target, rows=[row for row in ROWS if row["split"] != "train"] + ROWS[:36])
    assert small.spread.n == 12 and "all 12 train rows" in small.warnings[0]


def test_pilot_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    first, again, other = Knowing(), Knowing(), Knowing()
    assert ask(first).spread == ask(again).spread
    assert first.asked == again.asked
    ask(other, seed=1)
    assert set(first.asked) != set(other.asked)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"budget": remask.Budget(calls=200)}, r"needs 260 calls .* is 200; ask 30 rows or fewer, or raise"),
        ({"budget": remask.Budget(calls=40)}, r"needs 260 calls .* is 40; raise the limit"),
        ({"rows_asked": 3}, r"a pilot needs 12 rows or more, not 3"),
    ],
)
def test_pilot_that_cannot_be_made_is_refused_before_a_call(arguments: dict[str, Any], said: str) -> None:
    target = Knowing()
    data = remask.Dataset(ROWS, split="split")
    rows = arguments.pop("rows_asked", 40)
    with pytest.raises(ConfigError, match=said):
        remask.pilot("Sort the message. Be kind.", data, rows=rows, target=target, **arguments)
    assert not target.asked


def test_too_few_train_rows_are_refused() -> None:
    target = Knowing()
    with pytest.raises(ConfigError, match="a pilot needs 12 train rows, and the data has 4"):
        ask(target, [row for row in ROWS if row["split"] != "train"] + ROWS[:8][:2] + ROWS[6:8])
    assert not target.asked


def test_a_limit_of_tokens_stops_the_pilot() -> None:
    with pytest.raises(BudgetSpent, match="tokens"):
        ask(Knowing(), budget=remask.Budget(calls=None, tokens=500))


def test_failed_answers_leave_their_rows_out_and_many_of_them_end_the_pilot() -> None:
    def failing(share: int) -> Any:
        known = Knowing()

        def respond(messages: list[dict[str, str]]) -> str:
            if int(messages[-1]["content"].split()[1].rstrip(".")) % 10 < share:
                raise ValueError("no answer")
            return known(messages)

        return respond

    found = ask(failing(1))
    assert found.spread.n < 40 and "have no score; their rows were left out" in found.warnings[0]
    with pytest.raises(TargetUnreliable, match="of 240 answers have no score"):
        ask(failing(5))


def test_scores_between_0_and_1_and_a_prompt_as_user_message() -> None:
    rows = [{"text": f"row {i}", "label": "red blue", "split": SPLITS[i % 3]} for i in range(90)]
    data = remask.Dataset(rows, split="split", role="user", input="{text}")

    def respond(messages: list[dict[str, str]]) -> str:
        assert "row " in messages[-1]["content"]  # the variable stays in every prompt
        return "red" if "short answers" in messages[-1]["content"] else "red blue"

    said = remask.pilot("Answer {text}. Be short answers.", data, target=respond, metric="f1", rows=20)
    assert said.matters and said.prompts[0].score.mean == pytest.approx(2 / 3)


def test_real_model_on_a_task_where_prompts_matter_and_one_where_they_do_not(tmp_path: Path) -> None:
    rows = [(f"{said} {thing}.", label) for said, label in WORDS.items() for thing in THINGS]
    wide = {split: [(f"{i} {text}", label) for text, label in rows] for i, split in enumerate(SPLITS)}
    found = remask.pilot("Classify the message.", wide, rows=24, progress=False)
    assert found.changed is None  # it gives the same answer each time
    assert found.matters, found.spread
    sums = [(f"What is {n} times {n * n + 7}?", str(n * (n * n + 7))) for n in range(13, 61)]
    target = remask.Target("builtin", max_tokens=3)
    other = remask.pilot("Answer.", sums, rows=12, target=target, metric="number", progress=False)
    assert not other.matters and other.spread.range == 0
