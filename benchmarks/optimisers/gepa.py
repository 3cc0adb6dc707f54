"""gepa on the benchmark's task: with the 135M model as reflection model, which is small for that,
and with remask's diffusion proposer as reflection strategy."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import gepa
from gepa.core.adapter import EvaluationBatch

from benchmarks.optimisers.rewriter import Writer
from benchmarks.optimisers.scripted import Script
from benchmarks.search.lab import Lab
from remask.ids import seed_for
from remask.integrations.gepa import DiffusionReflection
from remask.models.backbone.builtin_weights import load_base
from remask.prompt import Prompt
from remask.types import Outcome

COMPONENT = "system_prompt"
MINIBATCH = 3  # gepa's default
ANSWER_TOKENS = 96  # of one reflection at most; the prompt in it stands between two fences
FENCE = "```"


def gepa_reflector(lab: Lab) -> None:
    """Run gepa with the autoregressive model of the denoiser's size as reflection model."""
    writer, turns = Writer(load_base()), count()

    def reflect(prompt: str | list[dict[str, str]]) -> str:
        said = prompt if isinstance(prompt, str) else "\n\n".join(m["content"] for m in prompt)
        seed = seed_for(lab.seed, "reflect", next(turns))
        return writer.write(said, 1, seed, ANSWER_TOKENS, ended=is_fenced)[0]

    evolve(lab, reflection_lm=reflect)


def gepa_remask(lab: Lab) -> None:
    """Run gepa with remask as reflection strategy."""
    reflection = DiffusionReflection(
        {COMPONENT: lab.bench.seed_prompt}, seed=lab.seed, labels=lab.bench.labels, answer=lab.bench.answer
    )
    evolve(lab, reflection_strategy=reflection)


def gepa_strong(lab: Lab) -> None:
    """Run gepa with a reflection model that says the good instructions of the script."""
    script = Script(lab)
    evolve(lab, reflection_lm=lambda prompt: f"{FENCE}\n{script.say_next()}\n{FENCE}")


def is_fenced(text: str) -> bool:
    """Whether the text has the opening and the closing fence of a prompt."""
    return text.count(FENCE) > 1


class LabAdapter:
    """gepa's adapter. Rows are ids. The incumbent is the candidate with the best score so far on
    all validation rows."""

    propose_new_texts = None  # gepa's own way, unless a strategy is given

    def __init__(self, lab: Lab) -> None:
        self.lab, self.best, self.validation = lab, -1.0, list(lab.task.ids("validation"))

    def evaluate(
        self, batch: list[str], candidate: dict[str, str], capture_traces: bool = False
    ) -> EvaluationBatch[Outcome, str]:
        text = candidate[COMPONENT]
        outcomes = self.lab.task.evaluate(Prompt(text), batch)
        scores = [o.score if o.status == "scored" else 0.0 for o in outcomes]
        if list(batch) == self.validation and sum(scores) > self.best:
            self.best = sum(scores)
            self.lab.report(text)
        answers = [o.trace.response if o.trace else "" for o in outcomes]
        return EvaluationBatch(answers, scores, outcomes if capture_traces else None)

    def make_reflective_dataset(
        self,
        candidate: dict[str, str],
        eval_batch: EvaluationBatch[Outcome, str],
        components_to_update: list[str],
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        traces = [o.trace for o in eval_batch.trajectories or () if o.trace is not None]
        records = [
            {
                "Inputs": t.query,
                "Generated Outputs": t.response,
                "Expected": t.desired or "",
                "Score": t.score or 0.0,
            }
            for t in traces
        ]
        return dict.fromkeys(components_to_update, records)


def evolve(lab: Lab, **how: Any) -> None:
    """Run gepa.optimize until the counted calls are spent; `how` names the proposer.

    gepa counts repeated questions as calls, so the cap of the lab ends the run instead. BudgetSpent
    leaves gepa's loop, because gepa's default is `raise_on_exception`.
    """

    def spent(state: Any) -> bool:
        return lab.counted.spent + 2 * MINIBATCH > lab.cap

    adapter = LabAdapter(lab)
    gepa.optimize(
        seed_candidate={COMPONENT: lab.bench.seed_prompt},
        trainset=list(lab.task.ids("train")),
        valset=adapter.validation,
        adapter=adapter,
        max_metric_calls=20 * lab.cap,  # an end where all is answered from memory
        stop_callbacks=spent,
        reflection_minibatch_size=MINIBATCH,
        cache_evaluation=False,
        seed=lab.seed,
        logger=Silent(),
        **how,
    )


class Silent:
    def log(self, message: str) -> None:
        """gepa's log is not kept."""
