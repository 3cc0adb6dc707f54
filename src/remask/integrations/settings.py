"""Proposers for components, from the settings that all integrations share."""

from collections.abc import Mapping, Sequence
from typing import Any

from remask.api.build_models import make_denoiser
from remask.api.build_proposer import make_proposer, refuse_demos
from remask.config import Config, make_config, merged
from remask.ports import Denoiser, Proposer
from remask.prompt import Prompt


def configured(dlm: str | Denoiser, answer: str, settings: Mapping[str, Any] | None) -> Config:
    """Only the sections dlm, search and metric.answer count. Raises ConfigError."""
    values = {
        "prompt": "-",
        "dlm": {"model": dlm if isinstance(dlm, str) else "object:denoiser"},
        "metric": {"answer": answer},
    }
    config = make_config(merged(values, settings or {}), "settings")
    refuse_demos(config, "an integration")
    return config


def proposers(
    start: Mapping[str, Prompt],
    config: Config,
    dlm: str | Denoiser,
    labels: Sequence[str],
) -> dict[str, Proposer]:
    """One for each component that has editable text; they share the denoiser."""
    denoiser = make_denoiser(config.dlm, None if isinstance(dlm, str) else dlm)
    return {
        name: make_proposer(config, prompt, denoiser, labels)
        for name, prompt in start.items()
        if prompt.editable
    }
