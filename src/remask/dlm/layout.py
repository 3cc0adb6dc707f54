"""How the traces and the rest of a prompt are encoded as tokens, for use and for training.

An adapter understands only the layout that it was trained on, so both call this module.
"""

from dataclasses import dataclass, replace
from typing import Any

from remask.dlm.canvas import clip_middle
from remask.dlm.families import Family
from remask.dlm.reading import Ids
from remask.dlm.render import render, render_rest
from remask.models.backbone.transformer import Backbone
from remask.ports import Context

TRACE_LAYOUT_TOKENS = 16  # around the texts of one trace, rough


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of one family for one tokenizer."""

    backbone: Backbone
    family: Family

    def count(self, text: str) -> int:
        """Count the tokens of `text`."""
        return len(self.backbone.encode(text))

    def count_context(self, tokens: int, traces: int) -> int:
        """Return how many tokens may precede a prompt, with traces of so many tokens in all."""
        frame = len(self.encode_context((), "")[0])
        return frame + min(tokens + traces * TRACE_LAYOUT_TOKENS, self.family.context)

    def without_weights(self) -> "Layout":
        """Return the same layout with a backbone that only encodes and decodes."""
        no_model: Any = None
        return replace(self, backbone=replace(self.backbone, model=no_model))

    def render_rest(self, before: str, after: str) -> str:
        """Render the prompt outside a window, clipped to `family.rest` tokens."""
        return render_rest(self._clip(before), self._clip(after))

    def encode_context(self, traces: Context, rest: str) -> tuple[Ids, int]:
        """Encode all that precedes the prompt, and count the ids that do not depend on `rest`.

        Traces that exceed the family's limit are dropped from the end.
        """
        limit = self.family.context - (self.family.rest if rest else 0)
        backbone = self.backbone
        while len(ids := self._encode_open_turn(render(traces))) > limit and traces:
            traces = traces[:-1]
        tail = [*backbone.encode(rest), self.end, *backbone.encode(backbone.frame.after)]
        return (*ids, *tail, *backbone.encode_opening("assistant")), len(ids)

    @property
    def end(self) -> int:
        """The id that ends a turn, and so the prompt."""
        return self.backbone.token_id(self.backbone.frame.end)

    def _clip(self, text: str) -> str:
        """Keep both ends of `text`, in at most half of the tokens for the rest of a prompt."""
        limit = self.family.rest // 2
        words = limit
        while self.count(clipped := clip_middle(text, words)) > limit and words > 1:
            words = words * 3 // 4
        return clipped

    def _encode_open_turn(self, text: str) -> Ids:
        """Encode a user's turn without its closing tokens."""
        turn = self.backbone.encode_turn("user", text)
        closing = 1 + len(self.backbone.encode(self.backbone.frame.after))
        return (*self.backbone.encode_start(), *turn[: len(turn) - closing])
