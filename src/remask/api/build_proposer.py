"""From settings to a proposer: which traces are read, where is edited, what a candidate may be."""

from collections.abc import Sequence

from remask.config import MASKERS, Config
from remask.errors import ConfigError
from remask.ports import Choose, DenoiserModel, Proposer, Scorer
from remask.prompt import Prompt
from remask.propose.demonstrations import DemoProposer
from remask.propose.proposer import DiffusionProposer, ProposerConfig
from remask.propose.select_traces import select
from remask.tasks.labelled import fill_answer


def make_proposer(
    config: Config,
    start: Prompt,
    denoiser: DenoiserModel,
    labels: Sequence[str] = (),
    choose: Choose = select,
) -> DiffusionProposer:
    """A denoiser that cannot score text (an API) gets neither `attribution` nor explanations.

    `labels`: the answers that the task allows; a prompt may name them. `choose`: which traces are
    read.

    Raises ConfigError as `check_proposer` does.
    """
    check_proposer(config, start, denoiser)
    search = config.search
    scores = isinstance(denoiser, Scorer)
    maskers = search.maskers if scores else tuple(m for m in search.maskers if m != "attribution")
    answers = tuple(fill_answer(config.metric.answer, label) for label in labels)
    read, growth = (search.traces, search.context_tokens), search.max_growth
    recipe = ProposerConfig(maskers, *read, growth, answers, choose, search.max_tokens)
    return DiffusionProposer(start, denoiser, recipe)


def check_proposer(config: Config, start: Prompt, denoiser: DenoiserModel) -> None:
    """Raise ConfigError where `attribution` is asked of a denoiser without probabilities, and
    where the prompt is longer than `search.max_tokens`."""
    search = config.search
    asked = "attribution" in search.maskers and search.maskers != MASKERS
    if asked and not isinstance(denoiser, Scorer):
        raise ConfigError(
            f"the masker attribution needs a denoiser with probabilities, which "
            f"{config.denoiser.model} does not give; leave attribution out of "
            "search.maskers or use a local model"
        )
    tokens = denoiser.count(start.text)
    if search.max_tokens is not None and tokens > search.max_tokens:
        raise ConfigError(
            f"the prompt has {tokens} tokens already and search.max_tokens (--max-tokens) allows "
            f"{search.max_tokens}; raise the limit or begin with a shorter prompt"
        )


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
