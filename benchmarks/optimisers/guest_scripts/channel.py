"""The guest's end of the channel to the benchmark: one JSON object a line, a question and its answer.

The guests import this module and the libraries of their own environment, and nothing of remask.
"""

import json
import os
import sys
from typing import Any


class Channel:
    """The benchmark, as a guest sees it: it scores prompts, writes texts, and takes incumbents down.

    `start`: the seed prompt, the labels, the cap of target calls, the seed, and the rows of `train`
    and `validation`, each with its id, its input and, where it is for training, its right answer.
    """

    def __init__(self) -> None:
        # Libraries print. What they print must not get between the lines of the channel.
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self.start: dict[str, Any] = json.loads(sys.stdin.readline())

    def evaluate(self, asked: list[tuple[str, str]]) -> list[tuple[float, str]]:
        """Ask the target each (system prompt, id of a row). Returns (score, response) of each.

        The benchmark ends this process instead of passing the cap.
        """
        outcomes = self._ask({"do": "evaluate", "asked": asked})
        return [(score, response) for score, response in outcomes]

    def write(self, message: str, begun: str, stop: str) -> str:
        """Return what the writer adds to `begun`, up to `stop`."""
        text: str = self._ask({"do": "write", "message": message, "begun": begun, "stop": stop})
        return text.partition(stop)[0].strip()

    def report(self, prompt: str) -> None:
        """Say that `prompt` is now the one that would be returned."""
        self._ask({"do": "report", "prompt": prompt})

    def _ask(self, request: dict[str, Any]) -> Any:
        print(json.dumps(request), file=self._out, flush=True)
        line = sys.stdin.readline()
        if not line:
            os._exit(1)  # the benchmark is gone; a library would catch an exception and go on
        return json.loads(line)
