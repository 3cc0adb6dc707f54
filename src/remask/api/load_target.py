"""`load_target` of the public API: ask a target yourself, outside a run."""

from remask.api.arguments import Target
from remask.api.build_models import make_target
from remask.errors import ConfigError
from remask.ports import TargetModel


def load_target(target: str | Target = "builtin") -> TargetModel:
    """Load a target, to ask it yourself: outside a run, without a budget and without stored answers.

    `target` is a name or a Target, as in `optimize`. `respond` answers chats, and the built-in
    target can also `choose` among answers; see remask.ports.TargetModel. Raises ConfigError for a
    name that is unknown and BackendError where the weights or the package are missing.

    >>> import remask
    >>> from remask.types import Message
    >>> target = remask.load_target("builtin")
    >>> chat = (Message("system", "Answer briefly."), Message("user", "What is the capital of France?"))
    >>> target.choose([chat], ["Paris.", "A bicycle."])[0].text
    'Paris.'
    """
    if not isinstance(target, str | Target):
        raise ConfigError(f"target must be a name or a remask.Target, not {type(target).__name__}")
    return make_target(Target(target) if isinstance(target, str) else target)
