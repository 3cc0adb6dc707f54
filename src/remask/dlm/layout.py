"""How a context and the rest of a prompt become tokens, for use and for training alike.

An adapter understands only the layout that it was trained on, so both sides call this. Knows a
backbone's tokens and chat frame, and a family's limits. Knows nothing of canvases and sampling.
"""

from dataclasses import dataclass

from remask.dlm.canvas import clip_middle
from remask.dlm.families import Family
from remask.dlm.reading import Ids
from remask.dlm.render import render, render_rest
from remask.models.backbone.transformer import Backbone
from remask.ports import Context


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of one family for one tokenizer."""

    backbone: Backbone
    family: Family

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        return len(self.backbone.encode(text))

    def rest(self, before: str, after: str) -> str:
        """What is told of the prompt outside a window, in the tokens that it may take."""
        return render_rest(self._clip(before), self._clip(after))

    def context(self, traces: Context, rest: str) -> tuple[Ids, int]:
        """All ids before the prompt, and how many of them do not depend on `rest`.

        Traces that pass the family's limit are dropped from the end.
        """
        limit = self.family.context - (self.family.rest if rest else 0)
        backbone = self.backbone
        while len(ids := self._turn(render(traces))) > limit and traces:
            traces = traces[:-1]
        tail = [*backbone.encode(rest), self.end, *backbone.encode(backbone.frame.after)]
        return (*ids, *tail, *backbone.opening("assistant")), len(ids)

    @property
    def end(self) -> int:
        """The id that ends a turn, and with it a prompt."""
        return self.backbone.token_id(self.backbone.frame.end)

    def _clip(self, text: str) -> str:
        """At most half of the tokens that the rest of a prompt may take, from both its ends."""
        limit = self.family.rest // 2
        words = limit
        while self.count(clipped := clip_middle(text, words)) > limit and words > 1:
            words = words * 3 // 4
        return clipped

    def _turn(self, text: str) -> Ids:
        """A user's turn that is not yet closed."""
        turn = self.backbone.turn("user", text)
        closing = 1 + len(self.backbone.encode(self.backbone.frame.after))
        return (*self.backbone.beginning(), *turn[: len(turn) - closing])
