"""`remask.optimize` with a function that is called before each chunk of calls, as Ctrl-C needs it.

The public function has no such argument; the command line gives one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import remask
from remask.api.arguments import settle_arguments, settle_rows
from remask.api.job import Hooks
from remask.api.optimize import start_run


def optimize_checked(
    prompt: str, checkpoint: Callable[[], None], run_dir: Path, **arguments: Any
) -> remask.Result:
    """`remask.optimize(prompt, **arguments)`, interrupted where `checkpoint` raises."""
    given = {"data": None, "target": "builtin", "metric": "label", "more": {}} | arguments
    values, objects = settle_arguments(prompt, **given)
    hooks = Hooks(checkpoint=checkpoint)
    return start_run(settle_rows(values, objects), objects, run_dir, hooks)
