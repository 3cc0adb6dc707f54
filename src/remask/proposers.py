"""From settings to a proposer: which traces are read, where is edited, what a candidate may be.

Part of the composition root, beside wire.py.
"""

from collections.abc import Sequence

from remask.condition import select
from remask.config import MASKERS, Config
from remask.demos import DemoProposer
from remask.errors import ConfigError
from remask.ports import Denoiser, Proposer, Scorer
from remask.prompt import Prompt
from remask.propose import Choose, DiffusionProposer, Recipe


def make_proposer(
    config: Config,
    start: Prompt,
    denoiser: Denoiser,
    labels: Sequence[str] = (),
    choose: Choose = select,
) -> DiffusionProposer:
    """A denoiser that cannot score text (an API) gets neither `blame` nor explanations.

    `labels`: the answers that the task allows; a prompt may name them. `choose`: which traces are
    read.

    Raises ConfigError where the user asks for `blame` all the same, and where the prompt is longer
    than `search.max_tokens`.
    """
    search = config.search
    scores = isinstance(denoiser, Scorer)
    if not scores and "blame" in search.maskers and search.maskers != MASKERS:
        raise ConfigError(
            f"the masker blame needs a denoiser with probabilities, which {config.dlm.model} does "
            "not give; leave blame out of search.maskers or use a local model"
        )
    maskers = search.maskers if scores else tuple(m for m in search.maskers if m != "blame")
    answers = tuple(config.metric.answer.replace("{label}", label) for label in labels)
    read, growth = (search.traces, search.context_tokens), search.max_growth
    tokens = denoiser.count(start.text)
    if search.max_tokens is not None and tokens > search.max_tokens:
        raise ConfigError(
            f"the prompt has {tokens} tokens already and search.max_tokens (--max-tokens) allows "
            f"{search.max_tokens}; raise the limit or begin with a shorter prompt"
        )
    recipe = Recipe(maskers, *read, growth, answers, choose, search.max_tokens)
    return DiffusionProposer(start, denoiser, recipe)


def with_demos(config: Config, start: Prompt, proposer: Proposer) -> Proposer:
    """The proposer, which may also show train rows where `search.demos` allows some.

    Raises ConfigError where the prompt is no system message.
    """
    search = config.search
    if not search.demos:
        return proposer
    if config.data.role == "user":
        raise ConfigError(
            f"search.demos = {search.demos}: examples stand at the end of a system message, and "
            "this prompt is the user's (data.role); leave --demos out"
        )
    return DemoProposer(start, proposer, search.demos, search.max_tokens)


def refuse_demos(config: Config, where: str) -> None:
    """Raise ConfigError where demonstrations are asked for and there are no train rows."""
    if config.search.demos:
        raise ConfigError(
            f"search.demos = {config.search.demos}: {where} shows no examples, only remask "
            "optimize does; leave it out"
        )
