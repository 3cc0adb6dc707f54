"""A language model of DSPy that is a function of the instructions and the input."""

from collections.abc import Callable
from typing import Any

import dspy
from dspy.lm15 import Message, Response, Usage


def make_lm(say: Callable[[str, str], str]) -> Any:
    """Return a model that says `say(instructions, message)` in the output field `label`."""

    class Engine:
        def complete(self, request: Any) -> Any:
            instructions = (request.system or "").rsplit("objective is:", 1)[-1].strip()
            text = request.messages[-1].text.split("[[ ## message ## ]]", 1)[-1].strip()
            return Response(
                id=None,
                model=request.model,
                message=Message.assistant(
                    f"[[ ## label ## ]]\n{say(instructions, text)}\n\n[[ ## completed ## ]]"
                ),
                finish_reason="stop",
                usage=Usage(input_tokens=0, output_tokens=0, total_tokens=0),
            )

        def close(self) -> None:
            """Nothing is open."""

    return dspy.LM("local/tiny", engine=Engine(), cache=False)
