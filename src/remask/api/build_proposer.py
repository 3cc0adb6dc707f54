"""Build a proposer from settings: which traces it reads, where it edits, what the guard allows."""

from collections.abc import Sequence

from remask.config import DEFAULT_DEMOS, MASKERS, Config
from remask.errors import ConfigError
from remask.ports import Choose, DenoiserModel, Limited, Proposer, Scorer
from remask.prompt import Prompt
from remask.propose.components import ComponentProposer
from remask.propose.demonstrations import DemoProposer
from remask.propose.proposer import DiffusionProposer, ProposerConfig
from remask.propose.select_traces import select
from remask.tasks.labelled import fill_answer
from remask.tasks.metrics import TOOL_CALL
from remask.types import Example

SYSTEM = "system"  # the component that is the system message
GROWTH_TOKENS = 64  # by which a prompt may grow in a run, at least, before it fills the denoiser


def make_proposer(
    config: Config,
    start: Prompt,
    denoiser: DenoiserModel,
    labels: Sequence[str] = (),
    choose: Choose = select,
) -> DiffusionProposer:
    """Make a proposer with the denoiser.

    `labels`: the labels of the task, which a prompt may contain. `choose`: selects the traces to
    read. With a denoiser that cannot score text (an API), the masker `attribution` is left out.
    Raises ConfigError as `check_proposer` does.
    """
    check_proposer(config, start, denoiser)
    search = config.search
    scores = isinstance(denoiser, Scorer)
    maskers = search.maskers if scores else tuple(m for m in search.maskers if m != "attribution")
    answers = tuple(fill_answer(config.metric.answer, label) for label in labels)
    read, growth = (search.traces, search.context_tokens), search.max_growth
    recipe = ProposerConfig(maskers, *read, growth, answers, tuple(labels), choose, search.max_tokens)
    return DiffusionProposer(start, denoiser, recipe)


def check_proposer(config: Config, start: Prompt, denoiser: DenoiserModel) -> None:
    """Raise ConfigError for settings that do not fit the denoiser or the prompt.

    These are the masker `attribution` with a denoiser without probabilities, a prompt longer than
    `search.max_tokens`, and prompt and traces that do not fit into the denoiser.
    """
    search = config.search
    asked = "attribution" in search.maskers and search.maskers != MASKERS
    if asked and not isinstance(denoiser, Scorer):
        raise ConfigError(
            f"the masker attribution needs a denoiser that gives probabilities, and {config.denoiser.model} "
            "does not; leave attribution out of search.maskers or use a local model"
        )
    tokens = denoiser.count(start.text)
    if search.max_tokens is not None and tokens > search.max_tokens:
        raise ConfigError(
            f"the prompt has {tokens} tokens and search.max_tokens (--max-tokens) allows "
            f"{search.max_tokens}; raise the limit or start with a shorter prompt"
        )
    if isinstance(denoiser, Limited):
        _require_room(config, tokens, denoiser)


def _require_room(config: Config, tokens: int, denoiser: Limited) -> None:
    """Raise ConfigError where a prompt of so many tokens and its traces do not fit the denoiser."""
    search = config.search
    whole, before = denoiser.context_length, denoiser.count_context(search.context_tokens, search.traces)
    if tokens + GROWTH_TOKENS + before <= whole:
        return
    over = tokens + GROWTH_TOKENS + before - whole
    smaller = before - over - denoiser.count_context(0, search.traces)
    remedy = f"set search.context_tokens to {smaller} or less" if smaller >= 32 else "shorten the prompt"
    raise ConfigError(
        f"the denoiser {config.denoiser.model} reads {whole:,} tokens at once, but the prompt has "
        f"{tokens:,}, may grow by {GROWTH_TOKENS}, and its traces take up to {before:,} "
        f"(search.context_tokens = {search.context_tokens}); {remedy}, or use another denoiser"
    )


def choose_demos(config: Config, examples: Sequence[Example]) -> int:
    """Return how many train rows a prompt may show: as set, or by default what the data allows.

    Raises ConfigError where some are set and there is no system message to show them in.
    """
    demos = config.search.demos
    # The answers of a program may be calls of tools, so it shows rows only where that is asked for.
    if components := Prompt.parse(config.prompt).components:
        if demos and SYSTEM not in components:
            raise ConfigError(
                f"search.demos = {demos}: examples are added to the component {SYSTEM}, and there is "
                "none; leave --demos out"
            )
        return demos or 0
    if config.data.role == "user":
        if demos:
            raise ConfigError(
                f"search.demos = {demos}: examples are added to a system message, and this "
                "prompt is a user message (data.role); leave --demos out"
            )
        return 0
    if demos is not None or config.task.name:
        return demos or 0
    if config.metric.name == TOOL_CALL:  # a call as text in the prompt is no example of a call
        return 0
    return DEFAULT_DEMOS if any(e.split == "train" and e.expected for e in examples) else 0


def make_prompt_proposer(
    config: Config, start: Prompt, denoiser: DenoiserModel, labels: Sequence[str], demos: int
) -> Proposer:
    """Make the proposer of a run on rows, which may show up to `demos` train rows.

    Of a prompt of several components each one with editable text gets a proposer. Raises ConfigError
    as `check_proposer` does.
    """

    def make(part: Prompt, config: Config, demos: int) -> Proposer:
        plain = make_proposer(config, part, denoiser, labels)
        return DemoProposer(part, plain, demos, config.search.max_tokens) if demos else plain

    if not start.components:
        return make(start, config, demos)
    proposers = {}
    for name, part in start.components.items():
        if part.editable:
            proposers[name] = make(part, _limit_tokens(config, name), demos if name == SYSTEM else 0)
    return ComponentProposer(proposers)


def _limit_tokens(config: Config, component: str) -> Config:
    """Return the settings with the limit of tokens of a component."""
    section = config.components.get(component)
    if section is None or section.max_tokens is None:
        return config
    search = config.search.model_copy(update={"max_tokens": section.max_tokens})
    return config.model_copy(update={"search": search})


def refuse_demos(config: Config, where: str) -> None:
    """Raise ConfigError where `search.demos` is set and there are no train rows."""
    if config.search.demos:
        raise ConfigError(
            f"search.demos = {config.search.demos}: {where} cannot add examples, only remask "
            "optimize can; leave search.demos out"
        )
