"""remask as shipped, and with one change: other draws, demonstrations, or random words."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.optimisers.scripted import Script, ScriptedTarget
from benchmarks.search.lab import Lab
from remask.api.build_models import make_denoiser
from remask.api.build_proposer import make_prompt_proposer, make_proposer
from remask.config import DEFAULT_DEMOS
from remask.dlm.chat_denoiser import ChatDenoiser
from remask.events import Accepted, State, advance
from remask.ids import rng_for, seed_for
from remask.models.backbone.builtin_weights import load_base
from remask.models.backbone.transformer import Backbone
from remask.ports import Canvas, Context, Fill, Hole, Proposer
from remask.search.plan import make_plan
from remask.search.scores import search

WORDS = 5000
PIECE = 0.2  # with this probability of a further letter, a word counts as a piece of a longer one
CHUNK = 250


def remask(lab: Lab) -> None:
    """Run remask with the default proposer, plan and acceptance rule."""
    search_with(lab, make_shipped_proposer(lab), lab.seed)


remask_demos = remask  # its name in committed results that are older than demonstrations by default


def remask_plain(lab: Lab) -> None:
    """Run remask where a prompt may show no train rows (`--demos 0`)."""
    search_with(lab, make_shipped_proposer(lab, 0), lab.seed)


def remask_again(lab: Lab) -> None:
    """Run remask on the same rows with other draws of the search and the proposer (A/A).

    Its difference from `remask` is noise, which the difference of any two optimisers contains.
    """
    search_with(lab, make_shipped_proposer(lab), seed_for(lab.seed, "again"))


def random_edits(lab: Lab) -> None:
    """Run remask with random words in the holes instead of the denoiser's text: the control.

    Masks, lengths, guard, plan and acceptance are those of remask. The masker `attribution` needs
    probabilities and is left out.
    """
    base = load_base()
    words = RandomWords(base, find_frequent_words(base))
    search_with(lab, make_proposer(lab.config, lab.start, words, lab.bench.labels), lab.seed)


def remask_strong(lab: Lab) -> None:
    """Run remask with a denoiser of the kind `chat:`, whose model says sentences of the script."""
    denoiser = ChatDenoiser(ScriptedTarget(Script(lab)))
    proposer = make_prompt_proposer(lab.config, lab.start, denoiser, lab.bench.labels, DEFAULT_DEMOS)
    search_with(lab, proposer, lab.seed)


def make_shipped_proposer(lab: Lab, demos: int = DEFAULT_DEMOS) -> Proposer:
    """The proposer of remask at the settings of the lab, with up to `demos` demonstrations."""
    denoiser = make_denoiser(lab.config.denoiser)
    return make_prompt_proposer(lab.config, lab.start, denoiser, lab.bench.labels, demos)


def search_with(lab: Lab, proposer: Proposer, seed: int) -> None:
    """Search with remask's own plan and report each accepted prompt.

    seed: of everything that the search draws.
    """
    rows = [len(lab.task.ids(split)) for split in ("train", "validation")]
    plan, state = make_plan(lab.cap, *rows), State()
    for event in search(state, lab.start, plan, lab.task, proposer, seed):
        state = advance(state, event)
        if isinstance(event, Accepted):
            lab.report(state.prompt(event.id).text)


@dataclass(frozen=True, slots=True)
class RandomWords:
    """A denoiser that reads nothing. It fills each hole with random words, `rate` per token."""

    backbone: Backbone
    words: Sequence[str]
    rate: float = 1.0

    def count(self, text: str) -> int:
        return len(self.backbone.encode(text))

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        return [
            Fill(
                tuple(
                    self._words(part.tokens, seed, i, j)
                    for j, part in enumerate(canvas)
                    if isinstance(part, Hole)
                ),
                0.0,
            )
            for i, canvas in enumerate(canvases)
        ]

    def _words(self, tokens: int, seed: int, *path: int) -> str:
        size = round(self.rate * tokens)
        chosen = rng_for(seed, "words", *path).integers(0, len(self.words), size)
        return " ".join(self.words[i] for i in chosen)


def find_frequent_words(backbone: Backbone) -> list[str]:
    """Frequent words of one token that the model takes for whole words.

    The first tokens of the vocabulary are the frequent ones. Pieces such as " dri" are left out,
    because they would make the control weaker than chance.
    """
    texts = backbone.tokenizer.decode_batch([[i] for i in range(backbone.vocab_size)])
    tokens: dict[str, int] = {}
    for token, text in enumerate(texts):
        word = text.strip()
        if text.startswith(" ") and word.isalpha() and word.isascii() and len(word) > 1:
            tokens.setdefault(word, token)
    frequent = dict(list(tokens.items())[:WORDS])
    letters = torch.tensor([text[:1].isalpha() for text in texts])
    chances = _chances_to_continue(backbone, list(frequent.values()), letters)
    return [w for w, p in zip(frequent, chances, strict=True) if p < PIECE]


def _chances_to_continue(backbone: Backbone, tokens: Sequence[int], by: Tensor) -> list[float]:
    """The probability that a token of `by` (V,) bool follows each of `tokens`."""
    start = torch.tensor([backbone.encode("Use the word")])
    _, past = backbone.read(start, torch.ones_like(start, dtype=torch.bool))
    found: list[float] = []
    for begin in range(0, len(tokens), CHUNK):
        ids = torch.tensor(tokens[begin : begin + CHUNK])[:, None]
        hidden = backbone.read_hidden(ids, torch.ones_like(ids, dtype=torch.bool), past)
        chance = backbone.logits(hidden[:, -1]).softmax(-1)
        found += chance[:, by].sum(1).tolist()
    return found
