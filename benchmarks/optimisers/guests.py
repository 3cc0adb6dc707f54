"""Optimisers whose libraries need an environment of their own.

A guest is a script that this Python's environment need not be able to run. It asks over its
standard input and output, one JSON object a line, and everything is done on this side: rows are
scored by the lab, behind its counter, and the small writer writes. So what a guest measures is what
the lab scores. The first line tells the guest the task.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import count, groupby
from pathlib import Path
from typing import IO, Any

from benchmarks.optimisers.rewriter import Writer
from benchmarks.optimisers.scripted import Script
from benchmarks.search.lab import Lab
from remask.ids import seed_for
from remask.models.backbone.builtin_weights import load_base
from remask.prompt import Prompt
from remask.tasks.labelled import fill_answer

SCRIPTS = Path(__file__).with_name("guest_scripts")
PYTHON = "GUEST_PYTHON"  # environment variable: the path of the Python that runs guests
ANSWER_TOKENS = 96  # of the writer, as of gepa's reflector
SEED_RANGE = 2**31  # numpy takes no larger seed
Write = Callable[[str, str, str], str]  # (message, beginning of the answer, stop) -> the rest of it


def mipro(lab: Lab) -> None:
    """Run DSPy's MIPROv2 with the small writer as proposer."""
    play_guest(lab, SCRIPTS / "mipro.py", make_small_writer(lab))


def mipro_strong(lab: Lab) -> None:
    """Run MIPROv2 with a proposer that says the good instructions of the script.

    What else MIPROv2 asks it for, descriptions of the data and of the program, it leaves empty.
    """
    script = Script(lab)

    def write(message: str, begun: str, stop: str) -> str:
        return script.say_next() if "proposed_instruction" in begun else ""

    play_guest(lab, SCRIPTS / "mipro.py", write)


def capo(lab: Lab) -> None:
    """Run CAPO with the small writer as its meta model."""
    play_guest(lab, SCRIPTS / "capo.py", make_small_writer(lab))


def make_small_writer(lab: Lab) -> Write:
    writer, turns = Writer(load_base()), count()

    def write(message: str, begun: str, stop: str) -> str:
        seed = seed_for(lab.seed, "guest", next(turns))
        return writer.write(message, 1, seed, ANSWER_TOKENS, begun, lambda text: stop in text)[0]

    return write


def play_guest(lab: Lab, script: Path, write: Write) -> None:
    """Run a script as the optimiser. Raises BudgetSpent, and RuntimeError where the script fails."""
    python = os.path.abspath(os.environ.get(PYTHON) or sys.executable)
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "log"), "w+", encoding="utf-8") as log:
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        own |= {"DSPY_CACHEDIR": folder, "PYTHONIOENCODING": "utf-8", "PYTHONHASHSEED": "0"}
        guest = subprocess.Popen(
            [python, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            cwd=folder, env=own, encoding="utf-8",
        )  # fmt: skip
        assert guest.stdin is not None and guest.stdout is not None
        # Where the guest is gone, its exit status says why.
        with contextlib.suppress(BrokenPipeError), guest:
            try:
                send(guest.stdin, describe_task(lab))
                for line in guest.stdout:
                    send(guest.stdin, answer(lab, write, json.loads(line)))
            except BaseException:
                guest.kill()
                raise
        if guest.returncode:
            log.seek(0)
            last = (log.read().strip() or "it said nothing").splitlines()[-1]
            remedy = f" (see {SCRIPTS.name}/requirements.txt)" if "No module named" in last else ""
            raise RuntimeError(f"{script.name} failed under {python}: {last}{remedy}")


def send(to: IO[str], value: Any) -> None:
    to.write(json.dumps(value) + "\n")
    to.flush()


def describe_task(lab: Lab) -> dict[str, Any]:
    """The first line of the channel. Right answers are those that the target would give itself."""
    answers = {question: fill_answer(lab.bench.answer, answer) for question, answer in lab.trained}
    return {
        "prompt": lab.bench.seed_prompt,
        "labels": lab.bench.labels,
        "cap": lab.cap,
        "seed": seed_for(lab.seed, "guest") % SEED_RANGE,
        **{
            split: [
                {"id": id, "input": lab.inputs[id], "answer": answers.get(lab.inputs[id], "")}
                for id in lab.task.ids(split)
            ]
            for split in ("train", "validation")
        },
    }


def answer(lab: Lab, write: Write, request: dict[str, Any]) -> Any:
    """Do what a guest asks for. Raises BudgetSpent."""
    if request["do"] == "evaluate":
        return evaluate(lab, request["asked"])
    if request["do"] == "write":
        return write(request["message"], request["begun"], request["stop"])
    lab.report(request["prompt"])
    return None


def evaluate(lab: Lab, asked: list[tuple[str, str]]) -> list[tuple[float, str]]:
    """Score each (prompt, id of a row): its score, 0 where the row failed, and the response."""
    found: list[tuple[float, str]] = []
    for prompt, pairs in groupby(asked, key=lambda pair: pair[0]):
        outcomes = lab.task.evaluate(Prompt(prompt), [id for _, id in pairs])
        found += [
            (o.score if o.status == "scored" else 0.0, o.trace.response if o.trace else "") for o in outcomes
        ]
    return found
