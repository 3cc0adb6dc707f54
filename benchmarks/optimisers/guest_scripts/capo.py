"""CAPO (arXiv 2504.16005) of the library promptolution, in an environment of its own.

The system prompt of the target is the whole prompt of a candidate and the user message is the row.
"""

import random
from typing import Any

import numpy as np
import pandas as pd
from channel import Channel
from promptolution.llms.base_llm import BaseLLM
from promptolution.optimizers.capo import CAPO
from promptolution.predictors.base_predictor import BasePredictor
from promptolution.tasks.base_task import BaseTask
from promptolution.utils import capo_utils
from promptolution.utils import prompt as prompts
from promptolution.utils.prompt_creation import create_prompt_variation

# The paper spends millions of tokens with a population of 10, 4 crossovers and up to ten blocks of 30
# rows. One step of that would cost more than the cap, so the first two follow the cap.
CALLS_PER_MEMBER, MIN_POPULATION, MAX_POPULATION = 160, 3, 10
MAX_CROSSOVERS = 4
BLOCKS = 3  # that a race reads at most
CALLS_PER_ROW, MIN_BLOCK, MAX_BLOCK = 50, 10, 30
MAX_STEPS = 30  # an end where all is answered from memory
OPEN, CLOSE = "<prompt>", "</prompt>"


class Writer(BaseLLM):
    """The model that writes. Its answer begins with the tag that is asked for."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self.channel = channel

    def _get_response(self, prompts: list[str], system_prompts: list[str]) -> list[str]:
        return [f"{OPEN}{self.channel.write(text, OPEN, CLOSE)}{CLOSE}" for text in prompts]


class Target(BaseLLM):
    """The target is asked by the predictor alone, which knows the rows."""

    def _get_response(self, prompts: list[str], system_prompts: list[str]) -> list[str]:
        raise NotImplementedError


class Predictor(BasePredictor):
    """Asks the target as the benchmark does. It keeps the scores of its last answers."""

    def __init__(self, channel: Channel, rows: list[dict[str, str]], labels: list[str]) -> None:
        super().__init__(Target())
        self.channel, self.rows, self.scores = channel, {row["input"]: row for row in rows}, []
        if labels:  # as the predictors of the library say it
            self.extraction_description = (
                f"The task is to classify the texts into one of those classes: {', '.join(labels)}."
            )

    def predict(
        self, prompts: list[str], xs: list[str], system_prompts: Any = None
    ) -> tuple[list[str], list[str]]:
        """Return the right answer where the response is right, else the response; and row and response."""
        asked = [(prompt, self.rows[x]["id"]) for prompt, x in zip(prompts, xs, strict=True)]
        outcomes = self.channel.evaluate(asked)
        self.scores = [score for score, _ in outcomes]
        predictions = [
            self.rows[x]["answer"] if score == 1 else response
            for x, (score, response) in zip(xs, outcomes, strict=True)
        ]
        return predictions, [f"{x}\n{response}" for x, (_, response) in zip(xs, outcomes, strict=True)]

    def _extract_preds(self, preds: list[str]) -> list[str]:
        raise NotImplementedError


class LabTask(BaseTask):
    """The validation rows, with the scores of the benchmark."""

    task_type = "reward"

    def __init__(
        self, predictor: Predictor, rows: list[dict[str, str]], about: str, block: int, seed: int
    ) -> None:
        frame = make_frame(rows)
        super().__init__(
            frame, "x", "y", about, n_subsamples=block, eval_strategy="sequential_block", seed=seed
        )
        self.task_type, self.predictor = "reward", predictor

    def _evaluate(self, xs: list[str], ys: list[str], preds: list[str]) -> Any:
        return np.array(self.predictor.scores, dtype=float)


def make_frame(rows: list[dict[str, str]]) -> Any:
    return pd.DataFrame({"x": [row["input"] for row in rows], "y": [row["answer"] for row in rows]})


def scale(wanted: int, least: int, most: int) -> int:
    return min(most, max(least, wanted))


def optimise(channel: Channel) -> None:
    """Run CAPO with its defaults; population, blocks and crossovers are scaled to the cap."""
    start = channel.start
    random.seed(start["seed"])
    np.random.seed(start["seed"])
    # A prompt with demonstrations has the form of few_shot. The library's own ends with "Input:",
    # since there the row continues the same message.
    prompts.DOWNSTREAM_TEMPLATE_W_FEWSHOTS = "<instruction>\n\nExamples:\n\n<few_shots>"
    capo_utils.CAPO_FEWSHOT_TEMPLATE = "<input>\n<output>"
    writer = Writer(channel)
    predictor = Predictor(channel, start["train"] + start["validation"], start["labels"])
    population = scale(start["cap"] // CALLS_PER_MEMBER, MIN_POPULATION, MAX_POPULATION)
    block = scale(start["cap"] // CALLS_PER_ROW, MIN_BLOCK, MAX_BLOCK)
    variations = create_prompt_variation([start["prompt"]] * (population - 1), writer)
    optimiser = CAPO(
        predictor,
        LabTask(predictor, start["validation"], start["prompt"], block, start["seed"]),
        writer,
        [start["prompt"], *variations],
        crossovers_per_iter=min(MAX_CROSSOVERS, population - 1),
        max_n_blocks_eval=BLOCKS,
        df_few_shots=make_frame(start["train"]),
    )
    # Not `optimiser.optimize`, which ends quietly by any error.
    optimiser._pre_optimization_loop()
    for _ in range(MAX_STEPS):
        optimiser.prompts = optimiser._step()
        channel.report(str(optimiser.prompts[0]))


optimise(Channel())  # a script: nothing imports it
