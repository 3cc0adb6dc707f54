"""Make candidates with measured gains, for `remask adapt --from-runs`, from instruction collections.

    python -m benchmarks.denoiser.measured_edits --data FOLDER --out FOLDER [--tasks N]
    python -m benchmarks.denoiser.measured_edits --out FOLDER --write-runs RUNS
    remask adapt --data CORPUS --from-runs RUNS -o FILE.safetensors
    python -m benchmarks.denoiser.measured_edits --data FOLDER --out OTHER --held-out --adapter FILE
    python -m benchmarks.denoiser.measured_edits --report FOLDER OTHER

FOLDER of the data has `corpus/` with Natural Instructions (`ni_instances.jsonl`). Each task starts
with a terse or partial version of its definition. The built-in denoiser edits it, and the built-in
target scores each candidate on rows of the task. The score of a row is the mean log-likelihood per
token of the right answer with its end of turn, so nothing is generated. The traces that the denoiser
reads come from other rows, which the target answered with the start prompt.

The families of remask's benchmark are left out: sentiment, entailment, paraphrase and letters, by
name and text, and every task that shares a text with SST, SNLI or MRPC. Each task is one file, and a
finished one is not made again, so an interrupted run goes on. About a fifth of the tasks, chosen by a
hash of the name, is marked as held out and must not be trained on; these are scored on twice as many
rows. The second and third command train on the others. The fourth draws candidates of the held-out
tasks with the new adapter and the same seeds, and the last compares them: share better than the start,
mean and best gain, and distinct word pairs of the new texts.
"""

import json
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import make_parser, read_json, write_json
from remask.api.build_proposer import make_proposer
from remask.config import make_config
from remask.dlm.adapter import SHIPPED_ADAPTER
from remask.dlm.build import BuiltinDenoiser
from remask.dlm.training.measured import count_distinct_pairs
from remask.events import Proposed, Scored, Started, encode
from remask.ids import content_id, rng_for, seed_for
from remask.models.backbone.attention import KVCache
from remask.models.backbone.builtin_weights import load_base
from remask.models.backbone.transformer import Backbone, pad_rows
from remask.models.builtin import BuiltinTarget, FrameLayout
from remask.ports import Proposal
from remask.prompt import Prompt
from remask.propose.proposer import DiffusionProposer
from remask.runs.store import Store
from remask.types import Example, Message, Trace

LEFT_OUT = re.compile(
    r"sentiment|polarity|emotion|feeling|review|opinion|entail|hypothes|premise|contradict|paraphras"
    r"|semantically|same meaning|nli\b|nli_|hans|scitail|sick_|imppres|pawsx|mrpc|qqp|\bsst|imdb|yelp"
    r"|positive or negative|negative or positive|\bletters?\b|customer",
    re.IGNORECASE,
)
BENCHMARKS = ("sst2", "sst5", "snli", "mrpc")
RUN_WORDS = 8  # a run of so many words of a benchmark's text excludes a task
HELD_OUT = 5  # one task of so many is held out
MAX_INPUT_WORDS, MAX_ANSWER_WORDS = 40, 12
MAX_START_WORDS = 24
MASKERS = ("insert", "span", "sentence", "anchor")
BATCH = 8  # candidates that are drawn at once, with the same traces
MAX_BATCHES = 6
GENERIC = ("Answer the question.", "Do the task.", "Reply to the message.", "You are a helpful assistant.")


@dataclass(frozen=True, slots=True)
class EditTask:
    """A task of the collection: how it starts, and its rows."""

    name: str
    variant: int  # 1: the same task with another start prompt
    start: str
    rows: tuple[Example, ...]  # to score on
    shown: tuple[Example, ...]  # to make traces of

    held_out: bool  # must not be trained on


class SoftTarget:
    """The built-in target, which scores right answers by their log-likelihood."""

    def __init__(self, base: Backbone, answer_tokens: int) -> None:
        self._base = base
        self._layout = FrameLayout(base)
        self._target = BuiltinTarget(base, answer_tokens)

    def answer(self, prompt: str, rows: Sequence[Example]) -> list[str]:
        """Answer the rows greedily."""
        chats = [(Message("system", prompt), Message("user", row.input)) for row in rows]
        return [reply.text for reply in self._target.respond(chats)]

    @torch.inference_mode()
    def score(self, prompt: str, rows: Sequence[Example]) -> list[float]:
        """Return the mean log-likelihood per token of the right answer to each row."""
        base, parts = self._base, []
        end = base.token_id("<|im_end|>")
        for row in rows:
            chat = (Message("system", prompt), Message("user", row.input))
            prefix, rest = self._layout.encode(chat)
            parts.append((rest, [*base.encode(row.expected or ""), end]))
        past = self._read_prefix(prefix)
        ids, mask = pad_rows([[*rest, *answer[:-1]] for rest, answer in parts], 0)
        hidden = base.read_hidden(ids, mask, past)
        places = [
            (i, len(rest) - 1 + k) for i, (rest, answer) in enumerate(parts) for k in range(len(answer))
        ]
        row_of, column = (torch.tensor(numbers) for numbers in zip(*places, strict=True))
        tokens = torch.tensor([token for _, answer in parts for token in answer])
        logp = base.logits(hidden[row_of, column]).log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        sums = torch.zeros(len(parts)).index_add(0, row_of, logp)
        return [float(s) / len(answer) for s, (_, answer) in zip(sums, parts, strict=True)]

    def _read_prefix(self, ids: Sequence[int]) -> KVCache:
        tokens = torch.tensor([list(ids)])
        return self._base.read(tokens, torch.ones_like(tokens, dtype=torch.bool))[1]


def read_tasks(data: Path, rows: int, shown: int) -> Iterator[EditTask]:
    """Yield the tasks in a fixed order: each once, then each again with another start prompt."""
    known = _read_runs(data)
    found = []
    for line in (data / "corpus" / "ni_instances.jsonl").read_text("utf-8").splitlines():
        task = json.loads(line)
        if LEFT_OUT.search(task["task"]) or LEFT_OUT.search(task["prompt"]):
            continue
        # Short rows cost little. All of them are checked, also those that are not used.
        examples = sorted((e for e in task["examples"] if _is_short(e)), key=lambda e: len(e["input"]))
        if len(examples) < 2 * rows + shown or _shares_text(examples, known):
            continue
        found.append((task["task"], task["prompt"], examples[: 2 * rows + shown]))
    found.sort(key=lambda task: content_id("measured-edits", task[0]))
    for variant in (0, 1):
        for name, definition, examples in found:
            held_out = seed_for(0, "measured-edits", "held-out", name) % HELD_OUT == 0
            rng = rng_for(0, "measured-edits", name, variant)
            order = [examples[i] for i in rng.permutation(len(examples))]
            made = [Example(f"r{i}", "train", e["input"], e["output"]) for i, e in enumerate(order)]
            start = cut_start(definition, int(rng.integers(4)))
            scored = made[shown:] if held_out else made[shown : shown + rows]
            yield EditTask(name, variant, start, tuple(scored), tuple(made[:shown]), held_out)


def cut_start(definition: str, kind: int) -> str:
    """Return a terse or a partial version of a definition, of one of four kinds."""
    sentences = re.split(r"(?<=[.!?])\s+", " ".join(definition.split()))
    if kind == 0:
        return GENERIC[seed_for(0, "generic", definition) % len(GENERIC)]
    take = {1: sentences[:1], 2: sentences[-1:], 3: sentences[: max(1, len(sentences) // 2)]}[kind]
    words = " ".join(take).split()
    text = " ".join(words[:MAX_START_WORDS])
    return text if len(words) <= MAX_START_WORDS else f"{text.rstrip(',;:')}."


def _is_short(example: dict[str, Any]) -> bool:
    text, answer = example["input"].split(), example["output"].split()
    return 0 < len(text) <= MAX_INPUT_WORDS and 0 < len(answer) <= MAX_ANSWER_WORDS


def _read_runs(data: Path) -> set[str]:
    """Return the runs of words of the benchmark's rows, and short rows as a whole."""
    found = set()
    for name in BENCHMARKS:
        for file in sorted((data / name).glob("*.jsonl")):
            for line in file.read_text("utf-8").splitlines():
                for key, text in json.loads(line).items():
                    if key != "label" and isinstance(text, str):
                        found.update(_list_runs(text))
    return found


def _list_runs(text: str) -> list[str]:
    words = re.findall(r"\w+", text.lower())
    if len(words) < RUN_WORDS:
        return [" ".join(words)] if len(words) >= RUN_WORDS // 2 else []
    return [" ".join(words[i : i + RUN_WORDS]) for i in range(len(words) - RUN_WORDS + 1)]


def _shares_text(examples: Sequence[dict[str, Any]], known: set[str]) -> bool:
    return any(run in known for e in examples for run in _list_runs(f"{e['input']} {e['output']}"))


def make_traces(task: EditTask, target: SoftTarget) -> list[Trace]:
    """Ask the target with the start prompt, and note the right answers."""
    answers = target.answer(task.start, task.shown)
    traces = []
    for row, answer in zip(task.shown, answers, strict=True):
        right = (row.expected or "").strip()
        score = float(answer.strip().casefold().rstrip(".") == right.casefold().rstrip("."))
        traces.append(Trace(row.id, row.input, answer, right, (), score))
    return traces


def draw_candidates(
    proposer: DiffusionProposer, start: Prompt, traces: Sequence[Trace], n: int, seed: int
) -> list[Proposal]:
    """Draw `n` different candidates that pass the guard, or as many as there are."""
    found: dict[str, Proposal] = {}
    for batch in range(MAX_BATCHES):
        for proposal in proposer.propose(start, traces, BATCH, seed_for(seed, "batch", batch)):
            if not proposal.violation and proposal.prompt.id != start.id:
                found.setdefault(proposal.prompt.id, proposal)
        if len(found) >= n:
            break
    return list(found.values())[:n]


def make_edit_proposer(start: str, denoiser: BuiltinDenoiser) -> DiffusionProposer:
    """Make remask's proposer with the maskers of this benchmark."""
    config = make_config({"prompt": start, "search": {"maskers": MASKERS}}, "measured-edits")
    return make_proposer(config, Prompt(start), denoiser)


def measure_task(
    task: EditTask, denoiser: BuiltinDenoiser, target: SoftTarget, candidates: int
) -> dict[str, Any]:
    """Draw the candidates of a task and score them."""
    begin = time.perf_counter()
    start = Prompt(task.start)
    traces = make_traces(task, target)
    asked = time.perf_counter()
    proposer = make_edit_proposer(task.start, denoiser)
    seed = seed_for(0, "measured-edits", task.name, task.variant)
    proposals = draw_candidates(proposer, start, traces, candidates, seed)
    drawn = time.perf_counter()
    before = target.score(task.start, task.rows)
    scored = [(p, target.score(p.prompt.text, task.rows)) for p in proposals]
    seconds = (asked - begin, drawn - asked, time.perf_counter() - drawn)
    return {
        "task": task.name,
        "held_out": task.held_out,
        "start": task.start,
        "traces": [
            {"id": t.id, "query": t.query, "response": t.response, "desired": t.desired, "score": t.score}
            for t in traces
        ],
        "scores": [round(s, 4) for s in before],
        "candidates": [
            {
                "masker": p.masker,
                "prompt": p.prompt.text,
                "masks": p.masks,
                "edits": p.edits,
                "traces": p.traces,
                "logp": p.logp,
                "scores": [round(s, 4) for s in scores],
            }
            for p, scores in scored
        ],
        "seconds": {name: round(s, 1) for name, s in zip(("answer", "draw", "score"), seconds, strict=True)},
    }


def write_run(found: dict[str, Any], folder: Path) -> None:
    """Write a measured task as a run directory, which `remask adapt --from-runs` reads."""
    start = Prompt(found["start"])
    with Store.create(folder, {"prompt": start.text}) as store, store.group():
        outcomes = {t["id"]: _describe_trace(t) for t in found["traces"]}
        store.keep_outcomes(start.id, outcomes)
        scores = [(start.id, found["scores"])]
        store.append(encode(Started(start.text, start.id, 0)))
        for c in found["candidates"]:
            prompt = Prompt(c["prompt"])
            how = (c["masker"], c["masks"], c["edits"], c["traces"], c["logp"])
            store.append(encode(Proposed(0, prompt.id, start.id, prompt.text, 0, *how)))
            scores.append((prompt.id, c["scores"]))
        for id, values in scores:
            rows = tuple((f"s{i}", math.exp(value), value) for i, value in enumerate(values))
            store.append(encode(Scored(0, id, "train", rows)))


def _describe_trace(trace: dict[str, Any]) -> dict[str, Any]:
    """Return a trace as a run stores it (runs/outcomes.py)."""
    texts = {"message": trace["query"], "text": trace["response"], "desired": trace["desired"]}
    return {"split": "train", "trace": trace["id"], **texts, "feedback": "", "score": trace["score"]}


def write_runs(folder: Path, out: Path) -> None:
    """Write the tasks of a folder that are not held out as run directories."""
    for path in sorted(folder.glob("*.json")):
        found = read_json(path)
        if not found["held_out"] and not (out / path.stem).exists():
            write_run(found, out / path.stem)


def print_report(folders: Sequence[Path]) -> None:
    """Print for each folder what its candidates of held-out tasks gained; tasks that all folders have."""
    named = [{path.name: path for path in folder.glob("*.json")} for folder in folders]
    shared = sorted(set.intersection(*(set(names) for names in named)))
    for folder, names in zip(folders, named, strict=True):
        tasks = [found for name in shared if (found := read_json(names[name]))["held_out"]]
        print(f"{folder.name}: {describe_tasks(tasks)}")


def describe_tasks(tasks: Sequence[dict[str, Any]]) -> str:
    """Describe share better, gains and diversity, each a mean over tasks."""
    better, gains, best = [], [], []
    for task in tasks:
        start = np.array(task["scores"])
        found = np.array([c["scores"] for c in task["candidates"]]).mean(1) - start.mean()
        better.append((found > 0).mean())
        gains.append(found.mean())
        best.append(found.max())
    texts = [text for task in tasks for c in task["candidates"] for _, _, text in c["edits"]]
    spread = np.std(better) / max(1, len(tasks)) ** 0.5
    return (
        f"{len(tasks)} tasks, {sum(len(t['candidates']) for t in tasks)} candidates: {np.mean(better):.3f} "
        f"better (standard error {spread:.3f}), mean gain {np.mean(gains):+.3f}, best of a task "
        f"{np.mean(best):+.3f} nats per token, distinct-2 {count_distinct_pairs(texts):.3f}"
    )


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    option("--data", type=Path, help="The folder of the data sets.")
    option("--out", type=Path, help="The folder that keeps one file per task.")
    option("--tasks", type=int, default=200, help="Tasks; a task may come twice. Default: 200.")
    option("--candidates", type=int, default=16, help="Candidates of each task. Default: 16.")
    option("--rows", type=int, default=8, help="Rows that each candidate is scored on. Default: 8.")
    option("--shown", type=int, default=8, help="Rows that become traces. Default: 8.")
    option("--answer-tokens", type=int, default=12, help="Tokens of an answer in traces. Default: 12.")
    option("--adapter", type=Path, default=SHIPPED_ADAPTER, help="Default: the shipped adapter.")
    option("--held-out", action="store_true", help="Only the held-out tasks.")
    option("--write-runs", type=Path, metavar="RUNS",
           help="Write the tasks of --out that are not held out as run directories, and end.")  # fmt: skip
    option("--report", type=Path, nargs="+", metavar="FOLDER",
           help="Compare the held-out tasks that all these folders have, and end.")  # fmt: skip
    args = parser.parse_args(words)
    if args.report:
        return print_report(args.report)
    if args.out is None or (args.data is None and not args.write_runs):
        parser.error("give --data and --out, or --write-runs and --out, or --report")
    if args.write_runs:
        return write_runs(args.out, args.write_runs)
    torch.set_num_threads(1)
    base = load_base()
    denoiser, target = BuiltinDenoiser(base, args.adapter), SoftTarget(base, args.answer_tokens)
    settings = {name: getattr(args, name) for name in ("candidates", "rows", "shown", "answer_tokens")}
    settings["denoiser"] = denoiser.identity
    tasks = list(islice(read_tasks(args.data, args.rows, args.shown), args.tasks))
    tasks = [task for task in tasks if task.held_out or not args.held_out]
    for number, task in enumerate(tasks, 1):
        path = args.out / f"{task.name}.{task.variant}.json"
        if path.exists():
            if read_json(path)["settings"] != settings:
                raise SystemExit(f"{path}: made with other settings; give another --out")
            continue
        row = measure_task(task, denoiser, target, args.candidates)
        write_json(path, {"settings": settings, **row})
        print(f"{number} of {len(tasks)}: {path.stem} {row['seconds']}", flush=True)


if __name__ == "__main__":
    main()
