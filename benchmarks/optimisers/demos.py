"""Demonstrations as part of a prompt, from train rows alone."""

import numpy as np

from benchmarks.search.lab import Lab


def with_demos(lab: Lab, n: int, rng: np.random.Generator) -> str:
    """The seed prompt and `n` train rows with their right answers; of labels, in turn."""
    rows = [lab.trained[i] for i in rng.permutation(len(lab.trained))]
    by_label: dict[str, list[tuple[str, str]]] = {}
    for question, answer in rows:
        by_label.setdefault(answer if lab.bench.labels else "", []).append((question, answer))
    chosen: list[tuple[str, str]] = []
    while len(chosen) < n and any(by_label.values()):
        for group in by_label.values():
            if group and len(chosen) < n:
                chosen.append(group.pop())
    shown = [chosen[i] for i in rng.permutation(len(chosen))]
    say = lab.bench.answer
    blocks = [f"{question}\n{say.replace('{label}', answer)}" for question, answer in shown]
    return "\n\n".join([lab.bench.seed_prompt, "Examples:", *blocks])
