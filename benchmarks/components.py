"""An agent with three texts, of which one or two are faulty: which texts does a search edit?

    python -m benchmarks.components [--cases NAME …] [--seeds 0 1 2 3 4] [--hosts remask …]
    python -m benchmarks.components --page

The agent is scripted, so only the search is measured, not a model. It follows what its texts say:
it handles a kind of request only where the text of that tool, or its system prompt, has a word for
it. Only the feedback on a wrong answer says what is missing, and it names neither tool nor text. The
denoiser is the built-in one. `--hosts` runs the same agent through the entry points of other tools.
"""

import argparse
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import remask
from benchmarks.record import RESULTS, describe_run, make_parser, read_json, write_json

TEXTS = {
    "system": "You work for a shop. Answer requests in one short sentence.",
    "tool:track": "Gives the place of a parcel for an order number.",
    "tool:send_back": "Prints a label for goods that go back to the shop within a month.",
}
# kind of request -> (message, component, words of which its text must have one, feedback without)
KINDS = {
    "number": ("Where is parcel {n}?", "tool:track", ("number",), ""),
    "mail": (
        "Where is my parcel? I only have my address user{n}@example.org.",
        "tool:track",
        ("mail",),
        "The place of the parcel was not given: the customer had an e-mail and no order number.",
    ),
    "return": ("The shoes of order {n} do not fit, I want to return them.", "tool:send_back", ("goods",), ""),
    "broken": (
        "The lamp of order {n} came in pieces, seven weeks ago.",
        "tool:send_back",
        ("broken", "damaged"),
        "No label was printed for these goods, but broken goods go back at any time.",
    ),
    "thanks": (
        "I love the coat of order {n}!",
        "system",
        ("thank",),
        "The sentence was short, but it must thank the customer.",
    ),
}
# case -> the kinds that fail at first
CASES = {"one tool": ("mail",), "two tools": ("mail", "broken"), "system prompt": ("thanks",)}
ALWAYS_RIGHT = ("number", "return")
ROWS = 150
CALLS = 400


def make_rows(case: str, seed: int) -> list[tuple[str, str]]:
    """Return (message, kind) of rows: half of them of kinds that fail at first."""
    rng = random.Random(f"{case} {seed}")
    rows = []
    for n in range(ROWS):
        kinds = CASES[case] if n % 2 else ALWAYS_RIGHT
        kind = rng.choice(kinds)
        rows.append((KINDS[kind][0].format(n=1000 + n), kind))
    rng.shuffle(rows)
    return rows


def find_kind(message: str) -> str:
    """Return the kind of a message, as the agent understands it."""
    heads = {kind: given[0].partition("{n}")[0] for kind, given in KINDS.items()}
    return max(heads, key=lambda kind: message.startswith(heads[kind]) * len(heads[kind]))


def run_agent(texts: Mapping[str, str], message: str) -> str:
    """Answer as the texts say: "done", or "not done" where no text has a word for the request."""
    _, component, words, _ = KINDS[find_kind(message)]
    return "done" if any(word in texts[component].lower() for word in words) else "not done"


def grade(kind: str, answer: str) -> remask.Score:
    right = answer == "done"
    return remask.Score(float(right), "" if right else KINDS[kind][3])


def run_remask(case: str, seed: int) -> tuple[dict[str, str], int, str]:
    """Return the texts at the end, the calls and the verdict."""
    rows = [{"input": message, "kind": kind} for message, kind in make_rows(case, seed)]
    with TemporaryDirectory() as folder:
        result = remask.optimize(
            TEXTS,
            remask.Dataset(rows, expected=""),
            target=run_agent,
            metric=lambda example, answer: grade(example.row["kind"], answer),
            max_calls=CALLS,
            seed=seed,
            run_dir=Path(folder) / "run",
            progress=False,
        )
    return result.components, result.spend.calls, result.verdict


HOSTS: dict[str, Callable[[str, int], tuple[dict[str, str], int, str]]] = {"remask": run_remask}


def describe_outcome(case: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Say which faults are mended, and which texts were edited that had no fault."""
    kinds = CASES[case]
    faulty = {KINDS[kind][1] for kind in kinds}
    mended = [k for k in kinds if any(word in texts[KINDS[k][1]].lower() for word in KINDS[k][2])]
    edited = [name for name in TEXTS if texts[name] != TEXTS[name]]
    return {"mended": mended, "edited": edited, "elsewhere": sorted(set(edited) - faulty)}


def measure(host: str, case: str, seed: int) -> dict[str, Any]:
    since = time.perf_counter()
    texts, calls, verdict = HOSTS[host](case, seed)
    found = describe_outcome(case, texts)
    seconds = round(time.perf_counter() - since)
    row = {"host": host, "case": case, "seed": seed, "calls": calls, "verdict": verdict, "seconds": seconds}
    return {**row, **found, "texts": {name: texts[name] for name in found["edited"]}}


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--hosts", nargs="+", choices=HOSTS, default=["remask"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=RESULTS / "components.json")
    args: argparse.Namespace = parser.parse_args(words)
    known = read_json(args.out)["rows"] if args.out.exists() else []
    rows = {(row["host"], row["case"], row["seed"]): row for row in known}
    about = describe_run(__file__, words)
    for host in args.hosts:
        for case in args.cases:
            for seed in args.seeds:
                row = rows[host, case, seed] = measure(host, case, seed)
                print(row, flush=True)
                write_json(args.out, {**about, "rows": [rows[key] for key in sorted(rows)]})


if __name__ == "__main__":
    main()
