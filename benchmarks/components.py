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
PAGE = DOCS / "how-to" / "components.md"
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


def run_gepa(case: str, seed: int) -> tuple[dict[str, str], int, str]:
    """gepa asks for all texts, of which remask edits one or two, and validates by itself."""
    import gepa
    from gepa.core.adapter import EvaluationBatch

    from remask.integrations.gepa import DiffusionReflection, PairedAcceptance

    train, validation = split_rows(case, seed)

    class Adapter:
        propose_new_texts = None
        calls = 0

        def evaluate(self, batch: Any, candidate: dict[str, str], capture_traces: bool = False) -> Any:
            self.calls += len(batch)
            answers = [run_agent(candidate, message) for message, _ in batch]
            graded = [grade(kind, answer) for (_, kind), answer in zip(batch, answers, strict=True)]
            records = [
                {"Inputs": message, "Generated Outputs": answer, "Feedback": score.feedback}
                for (message, _), answer, score in zip(batch, answers, graded, strict=True)
            ]
            return EvaluationBatch(answers, [score.value for score in graded], records)

        def make_reflective_dataset(self, candidate: Any, eval_batch: Any, components_to_update: Any) -> Any:
            return dict.fromkeys(components_to_update, eval_batch.trajectories)

    adapter = Adapter()
    reflection = DiffusionReflection(TEXTS, seed=seed)
    found = gepa.optimize(
        seed_candidate=reflection.seed_candidate,
        trainset=train,
        valset=validation,
        adapter=adapter,
        reflection_strategy=reflection,
        acceptance_criterion=PairedAcceptance(),
        module_selector="all",
        stop_callbacks=lambda state: adapter.calls + 2 * 3 + len(validation) > CALLS,
        max_metric_calls=20 * CALLS,
        seed=seed,
        logger=Silent(),
    )
    return found.best_candidate, adapter.calls, ""


class Silent:
    def log(self, message: str) -> None:
        """gepa's log is not kept."""


def run_dspy(case: str, seed: int) -> tuple[dict[str, str], int, str]:
    """A program with a predictor for each text, of which a request asks one."""
    import dspy

    from benchmarks.scripted_lm import make_lm
    from remask.integrations.dspy import RemaskOptimizer

    class Agent(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.texts = [dspy.Predict(dspy.Signature("message -> label", text)) for text in TEXTS.values()]

        def forward(self, message: str) -> Any:
            component = KINDS[find_kind(message)][1]
            return self.texts[list(TEXTS).index(component)](message=message)

    def say(instructions: str, message: str) -> str:
        words = KINDS[find_kind(message)][2]
        return "done" if any(word in instructions.lower() for word in words) else "not done"

    def metric(example: Any, prediction: Any, trace: Any = None) -> Any:
        score = grade(example.kind, prediction.label)
        return dspy.Prediction(score=score.value, feedback=score.feedback)

    train, validation = (
        [dspy.Example(message=message, kind=kind).with_inputs("message") for message, kind in part]
        for part in split_rows(case, seed)
    )
    optimizer = RemaskOptimizer(metric, max_metric_calls=CALLS, seed=seed, num_threads=1)
    with dspy.context(lm=make_lm(say)):
        better = optimizer.compile(Agent(), trainset=train, valset=validation)
    texts = {name: one.signature.instructions for name, one in zip(TEXTS, better.texts, strict=True)}
    assert optimizer.improved is not None
    return texts, optimizer.improved.runs, ""


def run_mlflow(case: str, seed: int) -> tuple[dict[str, str], int, str]:
    """Three prompts of the registry, and a scorer whose rationale is the feedback."""
    import mlflow
    from mlflow.entities import Feedback
    from mlflow.genai.scorers import scorer

    from remask.integrations.mlflow import RemaskPromptOptimizer

    rows = [row for part in split_rows(case, seed) for row in part]

    @scorer  # type: ignore[untyped-decorator, unused-ignore]
    def right(outputs: Any, expectations: Any) -> Any:
        score = grade(expectations["kind"], outputs)
        return Feedback(value=score.value, rationale=score.feedback)

    with TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        names = {name: name.replace(":", "_") for name in TEXTS}
        prompts = {n: mlflow.genai.register_prompt(name=names[n], template=TEXTS[n]) for n in TEXTS}

        def predict(message: str) -> str:
            return run_agent({name: prompt.format() for name, prompt in prompts.items()}, message)

        optimizer = RemaskPromptOptimizer(max_metric_calls=CALLS, seed=seed)
        found = mlflow.genai.optimize_prompts(
            predict_fn=predict,
            train_data=[{"inputs": {"message": m}, "expectations": {"kind": kind}} for m, kind in rows],
            prompt_uris=[prompt.uri for prompt in prompts.values()],
            optimizer=optimizer,
            scorers=[right],
        )
        by_name = {prompt.name: prompt.template for prompt in found.optimized_prompts}
    assert optimizer.improved is not None
    return {name: by_name[names[name]] for name in TEXTS}, optimizer.improved.runs, ""


def split_rows(case: str, seed: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return rows to train and to validate, for hosts that test elsewhere."""
    rows = make_rows(case, seed)
    return rows[:40], rows[40:90]


HOSTS: dict[str, Callable[[str, int], tuple[dict[str, str], int, str]]] = {
    "remask": run_remask,
    "gepa": run_gepa,
    "DSPy": run_dspy,
    "MLflow": run_mlflow,
}


def describe_outcome(case: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Say which faults are repaired, and which texts were edited that had no fault."""
    kinds = CASES[case]
    faulty = {KINDS[kind][1] for kind in kinds}
    repaired = [k for k in kinds if any(word in texts[KINDS[k][1]].lower() for word in KINDS[k][2])]
    edited = [name for name in TEXTS if texts[name] != TEXTS[name]]
    return {"repaired": repaired, "edited": edited, "elsewhere": sorted(set(edited) - faulty)}


def measure(host: str, case: str, seed: int) -> dict[str, Any]:
    since = time.perf_counter()
    texts, calls, verdict = HOSTS[host](case, seed)
    found = describe_outcome(case, texts)
    seconds = round(time.perf_counter() - since)
    row = {"host": host, "case": case, "seed": seed, "calls": calls, "verdict": verdict, "seconds": seconds}
    return {**row, **found, "texts": {name: texts[name] for name in found["edited"]}}


def summarise(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of how many runs repaired each fault, and how many edited a text without one."""
    table = []
    for host, case in dict.fromkeys((row["host"], row["case"]) for row in rows):
        runs = [row for row in rows if (row["host"], row["case"]) == (host, case)]
        n = len(runs)
        repaired = "; ".join(f"{sum(kind in row['repaired'] for row in runs)} of {n}" for kind in CASES[case])
        elsewhere = sum(bool(row["elsewhere"]) for row in runs)
        calls = round(sum(row["calls"] for row in runs) / n)
        table.append([host, case, repaired, f"{elsewhere} of {n}", calls])
    table.sort(key=lambda line: (list(HOSTS).index(line[0]), list(CASES).index(line[1])))
    return format_table(["through", "fault", "repaired", "edited elsewhere", "calls, mean"], table)


def write_page() -> None:
    data = read_json(RESULTS / "components.json")
    about = (
        f"A scripted agent with three texts, the built-in denoiser, {CALLS} calls at most. "
        f"{data['machine']}, commit {data['commit']}, `{data['command']}`. "
        "Where two tools are faulty, the figures are of each."
    )
    write_blocks(PAGE, {"components": f"{about}\n\n{summarise(data['rows'])}"})


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--hosts", nargs="+", choices=HOSTS, default=["remask"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    add_page_option(parser)
    parser.add_argument("--out", type=Path, default=RESULTS / "components.json")
    args: argparse.Namespace = parser.parse_args(words)
    if args.page:
        write_page()
        return
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
