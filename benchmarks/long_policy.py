"""A scripted agent under the airline policy of tau-bench, whose failures point at three of its rules.

    python -m benchmarks.long_policy --data FOLDER [--seeds 0 1 2]
    python -m benchmarks.long_policy --page

The data folder holds airline-policy.md (1,051 words in four sections). The agent is scripted: it
handles three kinds of requests only where the section of that kind has a word for it, which only
the feedback has. It fails every request where another rule is gone or out of order. So this
measures whether a search edits a long prompt at the right rules, not whether a model obeys them.
The denoiser is the built-in one.
"""

import random
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import remask
from benchmarks.record import (
    DOCS,
    RESULTS,
    add_page_option,
    describe_run,
    format_table,
    make_parser,
    read_json,
    write_blocks,
    write_json,
)

# kind of request -> (message, heading of its section, word that the section needs, feedback without it)
KINDS = {
    "pets": (
        "I am booking a flight, reservation {n}. My small dog comes along.",
        "Book flight",
        "animal",
        "The passengers were booked, but an animal in the cabin needs its own entry.",
    ),
    "seats": (
        "Please change the cabin of reservation {n}; my wheelchair must fit.",
        "Modify flight",
        "wheelchair",
        "The cabin was changed, but nobody asked where the wheelchair goes.",
    ),
    "strike": (
        "My trip {n} is hit by the strike, I want to cancel.",
        "Cancel flight",
        "strike",
        "A strike counts as a reason for cancellation, like a flight that the airline cancelled.",
    ),
}
EASY = "Which membership do I have? My number is {n}."
ROWS, CALLS = 200, 800
PAGE = DOCS / "how-to" / "long-policy.md"


def make_rows(seed: int) -> list[dict[str, str]]:
    """Return rows, of which half are of the three kinds."""
    rng = random.Random(seed)
    rows = []
    for n in range(ROWS):
        kind = rng.choice(list(KINDS)) if n % 2 else "easy"
        rows.append({"input": (KINDS[kind][0] if n % 2 else EASY).format(n=1000 + n), "kind": kind})
    rng.shuffle(rows)
    return rows


def split_sections(policy: str) -> dict[str, str]:
    """Return the text below each heading of the second level."""
    parts = re.split(r"^## (.*)$", policy, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def answer(policy: str, message: str) -> str:
    """Answer as the policy says."""
    for text, heading, word, _ in KINDS.values():
        start = text.partition("{n}")[0]
        if message.startswith(start):
            return "done" if word in split_sections(policy).get(heading, "").lower() else "not done"
    return "done"


def grade(kind: str, said: str) -> remask.Score:
    right = said == "done"
    return remask.Score(float(right), "" if right else KINDS[kind][3])


def keeps_order(before: str, after: str) -> bool:
    """Whether all headings and list items that both texts have stand in the same order."""
    lines = [[line.strip() for line in text.splitlines() if line.strip()] for text in (before, after)]
    both = set(lines[0]) & set(lines[1])
    return [line for line in lines[0] if line in both] == [line for line in lines[1] if line in both]


def measure(policy: str, seed: int) -> dict[str, Any]:
    since = time.perf_counter()
    with TemporaryDirectory() as folder:
        result = remask.optimize(
            policy,
            remask.Dataset(make_rows(seed), expected=""),
            target=lambda messages: answer(messages[0]["content"], messages[-1]["content"]),
            metric=lambda example, said: grade(example.row["kind"], said),
            max_calls=CALLS,
            seed=seed,
            run_dir=Path(folder) / "run",
            progress=False,
        )
    old, new = split_sections(policy), split_sections(result.prompt)
    return {
        "seed": seed,
        "verdict": result.verdict,
        "test": [result.test.baseline, result.test.best] if result.test else [],
        "calls": result.spend.calls,
        "seconds": round(time.perf_counter() - since),
        "repaired": [kind for kind, (_, heading, word, _) in KINDS.items() if word in new[heading].lower()],
        "edited": [heading for heading in old if old[heading] != new.get(heading)],
        "edits": [[list(change) for change in edit.changes] for edit in result.edits],
        "keeps_order": keeps_order(policy, result.prompt),
        "lost_lines": len(set(policy.splitlines()) - set(result.prompt.splitlines())),
    }


def summarise(rows: Sequence[Mapping[str, Any]]) -> str:
    table = [
        [
            row["seed"],
            " → ".join(f"{100 * score:.0f}" for score in row["test"]),
            f"{len(row['repaired'])} of {len(KINDS)}",
            ", ".join(row["edited"]) or "none",
            "yes" if row["keeps_order"] else "no",
            row["calls"],
        ]
        for row in rows
    ]
    head = ["seed", "test rows right, %", "rules repaired", "sections edited", "order kept", "calls"]
    return format_table(head, table)


def write_page() -> None:
    data = read_json(RESULTS / "long_policy.json")
    about = f"{data['machine']}, commit {data['commit']}, `{data['command']}`."
    write_blocks(PAGE, {"long_policy": f"{about}\n\n{summarise(data['rows'])}"})


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS / "long_policy.json")
    add_page_option(parser)
    args = parser.parse_args(words)
    if args.page:
        write_page()
        return
    if args.data is None:
        parser.error("--data is needed to measure")
    policy = (args.data / "airline-policy.md").read_text(encoding="utf-8").strip()
    about = describe_run(__file__, words, args.data)
    rows = []
    for seed in args.seeds:
        rows.append(measure(policy, seed))
        print(rows[-1], flush=True)
        write_json(args.out, {**about, "rows": rows})


if __name__ == "__main__":
    main()
