"""gepa around the benchmark's task: what both gepa rows have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

import gepa
from gepa.core.adapter import EvaluationBatch

from benchmarks.search.lab import Lab
from remask.prompt import Prompt
from remask.trace import Outcome

COMPONENT = "system_prompt"
MINIBATCH = 3  # gepa's default


class LabAdapter:
    """gepa's adapter: rows are ids; each candidate that all validation rows find best so far is
    the incumbent."""

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
    """gepa.optimize until the counted calls are spent; `how` names who proposes.

    gepa's own count takes repeats for calls, so the wrapper's cap ends the run instead. A refusal
    inside gepa's loop is raised again: `raise_on_exception` is gepa's default.
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
