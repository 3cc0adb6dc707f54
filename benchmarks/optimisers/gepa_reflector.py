"""gepa as it comes, with the 135M model as reflection model: a small reflector, and named so."""

from itertools import count

from benchmarks.optimisers.evolving import evolve
from benchmarks.optimisers.writer import Writer
from benchmarks.search.lab import Lab
from remask.backbone.weights import load_base
from remask.identity import seed_for

ANSWER_TOKENS = 96  # of one reflection at most; the prompt in it stands between two fences
FENCE = "```"


def optimise(lab: Lab) -> None:
    writer, turns = Writer(load_base()), count()

    def reflect(prompt: str | list[dict[str, str]]) -> str:
        said = prompt if isinstance(prompt, str) else "\n\n".join(m["content"] for m in prompt)
        seed = seed_for(lab.seed, "reflect", next(turns))
        return writer.write(said, 1, seed, ANSWER_TOKENS, ended=fenced)[0]

    evolve(lab, reflection_lm=reflect)


def fenced(text: str) -> bool:
    return text.count(FENCE) > 1
