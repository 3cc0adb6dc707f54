"""The example data in examples/support: form, balance, no near-duplicates, unchanged."""

import hashlib
import itertools
import json
import re
from collections import Counter

import pytest

from fakes import ROOT

FILE = ROOT / "examples" / "support" / "messages.jsonl"
TOPICS = ("billing", "delivery", "account", "bug")
SPLITS = {"train": 50, "validation": 100, "test": 300}
# Frozen before the first model run. If this fails, restore the file; do not adapt the digest.
DIGEST = "5854cfb31f823e14b0f02aa06a2459b688cd51f2ad60eed11089af34ba4a11ae"

Row = dict[str, str]


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def trigrams(text: str) -> set[tuple[str, ...]]:
    w = words(text)
    return set(zip(w, w[1:], w[2:], strict=False))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    # split on "\n" alone: splitlines() would also cut at other separators inside a string
    lines = FILE.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return [json.loads(line) for line in lines]


def test_lines_are_objects_with_three_strings(rows: list[Row]) -> None:
    assert len(rows) == 450
    for row in rows:
        assert list(row) == ["message", "topic", "split"]
        assert all(isinstance(value, str) for value in row.values())
        assert row["message"] == row["message"].strip()
        assert row["topic"] in TOPICS


def test_counts(rows: list[Row]) -> None:
    assert Counter(row["split"] for row in rows) == SPLITS
    for split, n in SPLITS.items():
        topics = Counter(row["topic"] for row in rows if row["split"] == split)
        assert set(topics) == set(TOPICS)
        assert all(0.2 <= k / n <= 0.3 for k in topics.values()), topics


def test_rows_are_mixed(rows: list[Row]) -> None:
    for key in ("topic", "split"):
        longest = max(len(list(run)) for _, run in itertools.groupby(r[key] for r in rows))
        assert longest < 25, key


def test_lengths(rows: list[Row]) -> None:
    lengths = [len(row["message"].split()) for row in rows]
    assert min(lengths) >= 4
    assert max(lengths) <= 56
    assert sum(n < 10 for n in lengths) >= 30
    assert sum(n >= 40 for n in lengths) >= 15


def test_labels_are_seldom_in_the_message(rows: list[Row]) -> None:
    named = sum(any(topic in row["message"].lower() for topic in TOPICS) for row in rows)
    assert named <= 0.15 * len(rows)


def test_messages_have_no_contact_data(rows: list[Row]) -> None:
    for row in rows:
        assert not re.search(r"\w@\w|https?:|www\.|\+?\d[\d ()/-]{8,}\d", row["message"]), row


def test_messages_begin_differently(rows: list[Row]) -> None:
    begins = Counter(tuple(words(row["message"])[:6]) for row in rows)
    assert begins.most_common(1)[0][1] == 1


def test_messages_have_no_near_duplicates(rows: list[Row]) -> None:
    """All pairs, hence all pairs across splits. The largest value in the file is 0.10."""
    grams = [trigrams(row["message"]) for row in rows]
    for (i, a), (j, b) in itertools.combinations(enumerate(grams), 2):
        common = len(a & b)
        if common:
            assert common / len(a | b) < 0.2, (rows[i]["message"], rows[j]["message"])


def test_file_is_unchanged(rows: list[Row]) -> None:
    content = json.dumps(rows, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(content.encode()).hexdigest() == DIGEST
