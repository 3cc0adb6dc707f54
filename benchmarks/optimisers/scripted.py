"""A strong writer that is scripted: it says the human prompts of the task, one after the other.

Its instructions are the same for every optimiser that can use one, in an order that depends on the
seed alone. So the rows `gepa_strong`, `mipro_strong` and `remask_strong` show what their engines make of
the same good instructions, apart from who writes them.
"""

import json
import math
import re
from collections.abc import Sequence
from itertools import cycle

from benchmarks.search.lab import Lab
from remask.dlm.chat_denoiser import WORDS_PER_TOKEN
from remask.dlm.infill_api import MAX_EXTRA_TOKENS, estimate_tokens
from remask.ids import rng_for
from remask.ports import Reply, TargetModel
from remask.types import Chat

BLANK = re.compile(r"^\[\[+(\d+)\]\]+ about (\d+) words?, ", re.MULTILINE)  # as ChatDenoiser lists them
BLANKS = "\nThe blanks:\n"
SENTENCE = re.compile(r"(?<=[.?!])\s+")


class Script:
    """The good instructions of a task; it starts again at the end."""

    def __init__(self, lab: Lab) -> None:
        texts = lab.bench.templates
        self.instructions = [texts[i] for i in rng_for(lab.seed, "script").permutation(len(texts))]
        self._turns = cycle(self.instructions)

    def say_next(self) -> str:
        return next(self._turns)


class ScriptedTarget(TargetModel):
    """A chat model for remask's ChatDenoiser, which fills blanks with sentences of the script."""

    identity = "script"

    def __init__(self, script: Script) -> None:
        self.sentences = [s for text in script.instructions for s in SENTENCE.split(text)]
        self._said = 0

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        return [Reply(self._fill(chat[-1].content)) for chat in chats]

    def _fill(self, task: str) -> str:
        blanks = BLANK.findall(task.rpartition(BLANKS)[2])
        return json.dumps({number: self._find_sentence(int(words)) for number, words in blanks})

    def _find_sentence(self, words: int) -> str:
        """The next sentence that fits a blank of about so many words."""
        room = estimate_room(words)
        for _ in self.sentences:
            sentence = self.sentences[self._said % len(self.sentences)]
            self._said += 1
            if estimate_tokens(sentence) <= room:
                return sentence
        raise ValueError(f"the script has no sentence of {room} tokens or less")


def estimate_room(words: int) -> int:
    """The tokens that ChatDenoiser allows for a blank that it calls "about `words` words", at least."""
    tokens = math.ceil((words - 0.5) / WORDS_PER_TOKEN)
    return 2 * tokens + MAX_EXTRA_TOKENS
