"""A frozen chat model on this machine, for answers and for choices: the built-in one or one from disk.

The keys and values of a system message are computed once and shared by all chats that have it; the
rest is read in batches. Chats with different system messages share a batch where each has few. The
batches depend only on the list of chats, so the same list gives the same bits. This module loads
torch, so import it only where that is acceptable.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import groupby, takewhile
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from remask.errors import ConfigError, NumericsError
from remask.ids import content_id, rng_for
from remask.models.backbone.attention import KVCache, stack_caches
from remask.models.backbone.transformer import Backbone, pad_rows
from remask.models.chat_components import split_components
from remask.models.pooled_target import TargetFacts
from remask.ports import Reply, TargetModel, report_step
from remask.types import Chat

_TEMPLATE = "chatml-1"  # part of the identity; change it if the layout of a chat changes
# Limits of memory. The keys and values of one token take 23 kB in bf16, so 16,384 take 0.4 GB.
MAX_BATCH_TOKENS = 16_384  # read at once, with the shared system message counted for every row
MAX_PREFIX_TOKENS = 16_384  # of system messages that are kept for later calls
# Rows are sorted by length, so smaller batches have less padding. A token of an answer reads all
# weights once for a batch, so answers gain from larger ones (docs/log.md).
MAX_CHOICE_ROWS, MAX_ANSWER_ROWS = 16, 32
MIN_SAME_PREFIX_ROWS = 8  # with fewer, rows are read in batches with rows that have other prefixes


@dataclass(frozen=True, slots=True)
class _ChatRow:
    """One chat as token ids: the shared prefix, and the rest."""

    index: int  # in the caller's list
    prefix: tuple[int, ...]  # the system turn, or empty
    rest: list[int]  # the other turns and the opening of the answer

    @property
    def length(self) -> int:
        return len(self.prefix) + len(self.rest)


class ChatLayout(Protocol):
    """How chats become token ids."""

    @property
    def identity(self) -> str:
        """All that can change the ids or the end of an answer."""

    @property
    def stops(self) -> Set[int]:
        """Ids that end an answer."""

    def encode(self, chat: Chat) -> tuple[tuple[int, ...], list[int]]:
        """Return the beginning that chats share, such as the system turn, and the rest with the
        opening of the answer."""


class FrameLayout:
    """The turns of the built-in model, in the frame of its backbone."""

    identity = _TEMPLATE

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.stops = frozenset({backbone.token_id("<|im_end|>"), backbone.token_id("<|endoftext|>")})

    def encode(self, chat: Chat) -> tuple[tuple[int, ...], list[int]]:
        """Encode a chat; the beginning is its system turn."""
        turns = [self._backbone.encode_turn(message.role, message.content) for message in chat]
        has_system = bool(chat) and chat[0].role == "system"
        prefix = tuple(turns.pop(0)) if has_system else ()
        rest = [token for turn in turns for token in turn]
        return prefix, rest + self._backbone.encode_opening("assistant")


class BuiltinTarget(TargetModel):
    """A target around `backbone` that can also choose. Use it from one thread at a time."""

    chooses = True

    def __init__(
        self,
        backbone: Backbone,
        max_tokens: int = 64,
        layout: ChatLayout | None = None,
        kind: str = "builtin",
        temperature: float = 0.0,
    ) -> None:
        """`layout` is that of the built-in model by default; `kind` begins the identity.

        Answers are greedy where `temperature` is 0, and sampled otherwise. Raises ConfigError if
        `max_tokens` is less than 1.
        """
        if max_tokens < 1:
            raise ConfigError(f"max_tokens is {max_tokens}; give 1 or more")
        self.max_tokens, self._temperature = max_tokens, temperature
        self._layout = layout or FrameLayout(backbone)
        self.identity = f"{kind}:{backbone.identity}:{self._layout.identity}:max_tokens={max_tokens}"
        if temperature:
            self.identity += f":temperature={temperature:g}"
        self._backbone = backbone
        self._prefixes: OrderedDict[tuple[int, ...], KVCache] = OrderedDict()

    def describe(self) -> TargetFacts:
        """Return what a driver must know of this target, where workers have it."""
        return TargetFacts(self.identity, self.chooses)

    @torch.inference_mode()
    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        """Answer each chat with at most `max_tokens` tokens, in order.

        The draws of a sampled answer depend on the chat and on `repeat`, not on the other chats. In
        bf16 the last digits of the logits, and with them single tokens, depend on the batch. A chat
        that exceeds the model's context becomes a Reply with `error`. Raises NumericsError if logits are
        NaN or infinite.
        """
        generate = partial(self._generate, repeat=repeat)
        return self._run_in_batches(chats, self.max_tokens, 0, MAX_ANSWER_ROWS, generate)

    @torch.inference_mode()
    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
        """Choose for every chat the most probable of `options`, each the full text of an answer.

        `logps` has the log-probability (nats) of all tokens of each option after the opening of the
        answer, without the end of the turn. The first of equal options wins. Raises ConfigError if
        there are no options or one is empty, NumericsError if logits are NaN or infinite.
        """
        answers = [self._backbone.encode(option) for option in options]
        if not answers or not all(answers):
            raise ConfigError(f"cannot choose between {list(options)}; give texts, none empty")
        columns = zip(*answers, strict=False)  # up to the end of the shortest
        shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))

        def decide(batch: list[_ChatRow]) -> list[Reply]:
            table = self._score(batch, answers, shared)  # (B, options)
            best = table.argmax(1).tolist()
            return [
                Reply(
                    options[choice],
                    input_tokens=row.length,
                    output_tokens=len(answers[choice]),
                    logps=tuple(logps),
                )
                for row, choice, logps in zip(batch, best, table.tolist(), strict=True)
            ]

        return self._run_in_batches(chats, max(map(len, answers)), shared, MAX_CHOICE_ROWS, decide)

    # -- batches ------------------------------------------------------------------------------

    def _run_in_batches(
        self,
        chats: Sequence[Chat],
        answer_tokens: int,
        read_ahead: int,
        most: int,
        work: Callable[[list[_ChatRow]], list[Reply]],
    ) -> list[Reply]:
        """Return one reply per chat, in order. `work` makes the replies of one batch.

        `read_ahead` is the number of answer tokens that are read with the chat; `most`, the number
        of rows of a batch.
        """
        replies: dict[int, Reply] = {}
        rows = []
        for index, chat in enumerate(chats):
            row = _ChatRow(index, *self._layout.encode(split_components(chat)[0]))
            if row.length + answer_tokens > self._backbone.context_length:
                replies[index] = Reply("", error=self._describe_overflow(row.length, answer_tokens))
            else:
                rows.append(row)
        for batch in _make_batches(rows, read_ahead, most):
            for row, reply in zip(batch, work(batch), strict=True):
                replies[row.index] = reply
            report_step("answer", len(replies), len(chats))
        return [replies[index] for index in range(len(chats))]

    def _describe_overflow(self, length: int, answer_tokens: int) -> str:
        return (
            f"the chat has {length} tokens, which leaves no room for an answer of {answer_tokens} in the "
            f"model's context of {self._backbone.context_length}; shorten the prompt or the input"
        )

    def _read_prefixes(self, batch: Sequence[_ChatRow]) -> KVCache | None:
        """Return the keys and values of the system turns of a batch: one row if all are equal."""
        prefixes = list(dict.fromkeys(row.prefix for row in batch))
        caches = [cache for ids in prefixes if (cache := self._read_prefix(ids)) is not None]
        if len(caches) < 2:
            return caches[0] if caches else None
        return stack_caches(caches).select(torch.tensor([prefixes.index(row.prefix) for row in batch]))

    def _read_prefix(self, ids: tuple[int, ...]) -> KVCache | None:
        """Return the keys and values of a system turn.

        It is read alone, so they do not depend on a batch.
        """
        if not ids:
            return None
        if ids in self._prefixes:
            self._prefixes.move_to_end(ids)
            return self._prefixes[ids]
        tokens = torch.tensor([ids])
        _, cache = self._backbone.read(tokens, torch.ones_like(tokens, dtype=torch.bool))
        self._prefixes[ids] = cache
        while len(self._prefixes) > 1 and sum(map(len, self._prefixes)) > MAX_PREFIX_TOKENS:
            self._prefixes.popitem(last=False)
        return cache

    # -- choosing -----------------------------------------------------------------------------

    def _score(self, batch: list[_ChatRow], answers: Sequence[list[int]], shared: int) -> Tensor:
        """Return (B, answers), the log-probability of every answer for every row.

        The `shared` first tokens of all answers are read with the chat. The tokens after the first
        own token of an answer are read in a second pass, after the keys and values of the first.
        """
        past = self._read_prefixes(batch)
        common = answers[0][:shared]
        ids, attention_mask = pad_rows([row.rest + common for row in batch], 0)
        tails = [answer[shared:] for answer in answers]
        long = [column for column, tail in enumerate(tails) if len(tail) > 1]
        if long:
            hidden, cache = self._backbone.read(ids, attention_mask, past)
        else:
            hidden = self._backbone.read_hidden(ids, attention_mask, past)
        rows = torch.arange(len(batch))
        last = attention_mask.sum(1) - 1  # (B,)
        table = torch.zeros(len(batch), len(answers))
        if shared:
            # The positions that predict the common tokens.
            positions = last[:, None] - shared + torch.arange(shared)
            tokens = torch.tensor(common).expand(len(batch), -1)
            logps = self._compute_logps(hidden[rows[:, None], positions], tokens)
            table += logps.sum(1, keepdim=True).cpu()
        own = [column for column, tail in enumerate(tails) if tail]
        first = self._backbone.logits(hidden[rows, last]).log_softmax(-1)  # (B, V)
        table[:, own] += first[:, [tails[column][0] for column in own]].cpu()
        if long:
            table[:, long] += self._score_tails(cache, [tails[column] for column in long])
        return _check_finite(table)

    def _score_tails(self, cache: KVCache, tails: Sequence[list[int]]) -> Tensor:
        """Return (B, tails), the log-probability of each tail without its first token."""
        ids, attention_mask = pad_rows([tail[:-1] for tail in tails], 0)
        tokens, _ = pad_rows([tail[1:] for tail in tails], 0)
        rows = len(cache.attention_mask)
        row = torch.arange(rows).repeat_interleave(len(tails))
        tail = torch.arange(len(tails)).repeat(rows)
        step = max(1, MAX_BATCH_TOKENS // (cache.attention_mask.shape[1] + ids.shape[1]))
        sums = []
        for start in range(0, len(row), step):
            r, t = row[start : start + step], tail[start : start + step]
            hidden = self._backbone.read_hidden(ids[t], attention_mask[t], cache.select(r))
            logps = self._compute_logps(hidden, tokens[t])
            logps = logps.masked_fill(~attention_mask[t].to(logps.device), 0.0)
            sums.append(logps.sum(1))
        return torch.cat(sums).view(rows, len(tails)).cpu()

    def _compute_logps(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Return (N, L), the log-probability of `tokens` (N, L) after hidden states (N, L, d).

        Positions are computed one by one, since the logits of all of them would need too much
        memory.
        """
        columns = []
        tokens = tokens.to(hidden.device)
        for position in range(tokens.shape[1]):
            logits = self._backbone.logits(hidden[:, position])  # (N, V)
            chosen = logits.gather(1, tokens[:, position, None])[:, 0]
            columns.append(chosen - logits.logsumexp(-1))
        return torch.stack(columns, 1)

    # -- answering ----------------------------------------------------------------------------

    def _generate(self, batch: list[_ChatRow], repeat: int) -> list[Reply]:
        """Decode token by token; rows that have ended leave the batch."""
        draws = [rng_for(repeat, "answer", content_id("chat", row.prefix, row.rest)) for row in batch]
        written: list[list[int]] = [[] for _ in batch]
        ids, attention_mask = pad_rows([row.rest for row in batch], 0)
        past = self._read_prefixes(batch)
        hidden, cache = self._backbone.read(ids, attention_mask, past)
        hidden = hidden[torch.arange(len(batch)), attention_mask.sum(1) - 1]  # (B, d)
        active = list(range(len(batch)))
        while active:
            report_step("token", max(map(len, written)), self.max_tokens)
            logits = _check_finite(self._backbone.logits(hidden))  # (active, V)
            tokens = draw_tokens(logits, self._temperature, [draws[row] for row in active])
            unfinished = []
            for index, (row, token) in enumerate(zip(active, tokens.tolist(), strict=True)):
                if token in self._layout.stops:
                    continue
                written[row].append(token)
                if len(written[row]) < self.max_tokens:
                    unfinished.append(index)
            if unfinished and len(unfinished) < len(active):
                cache = cache.select(torch.tensor(unfinished))
            active = [active[index] for index in unfinished]
            if active:
                one = torch.ones(len(active), 1, dtype=torch.bool)
                states, cache = self._backbone.read(tokens[unfinished][:, None], one, cache)
                hidden = states[:, 0]
        return [
            Reply(self._backbone.decode(tokens_out), input_tokens=row.length, output_tokens=len(tokens_out))
            for row, tokens_out in zip(batch, written, strict=True)
        ]


def draw_tokens(logits: Tensor, temperature: float, draws: Sequence[np.random.Generator]) -> Tensor:
    """Return a token (N,) for logits (N, V): the most probable one at temperature 0, else a drawn one.

    draws: a generator for each row.
    """
    if not temperature:
        return logits.argmax(-1)
    # Below the maximum by how much: a quotient would overflow where the temperature is near 0.
    below = logits.double().cpu() - logits.double().cpu().amax(-1, keepdim=True)
    upto = (below / temperature).softmax(-1).cumsum(-1)  # (N, V)
    at = torch.tensor([[rng.random()] for rng in draws]).double() * upto[:, -1:]
    chosen = torch.searchsorted(upto, at, right=True)[:, 0].clamp(max=upto.shape[1] - 1)
    return chosen.to(logits.device)


def _make_batches(rows: Sequence[_ChatRow], read_ahead: int, most: int) -> Iterator[list[_ChatRow]]:
    """Group rows of similar length, within the limits of memory.

    Rows whose prefix many others have are grouped with these, and the other rows that have a prefix
    with each other.
    """
    in_order = sorted(rows, key=lambda row: (row.prefix, len(row.rest), row.index))
    mixed: list[_ChatRow] = []
    for prefix, group in groupby(in_order, key=lambda row: row.prefix):
        same = list(group)
        if prefix and len(same) < MIN_SAME_PREFIX_ROWS:
            mixed += same
        else:
            yield from _cut_batches(same, read_ahead, most)
    mixed.sort(key=lambda row: (len(row.prefix), row.prefix, len(row.rest), row.index))
    yield from _cut_batches(mixed, read_ahead, most)


def _cut_batches(rows: Sequence[_ChatRow], read_ahead: int, most: int) -> Iterator[list[_ChatRow]]:
    batch: list[_ChatRow] = []
    for row in rows:
        longest = max(len(one.prefix) for one in (*batch, row)) + max(len(one.rest) for one in (*batch, row))
        if batch and (len(batch) == most or (len(batch) + 1) * (longest + read_ahead) > MAX_BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _check_finite(numbers: Tensor) -> Tensor:
    if not torch.isfinite(numbers).all():
        raise NumericsError("the target produced NaN or infinite numbers")
    return numbers
