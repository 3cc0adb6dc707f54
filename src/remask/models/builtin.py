"""SmolLM2-135M-Instruct as a frozen chat model on this machine: it answers, and it chooses.

Knows the backbone, ChatML and padding. The keys and values of a system message are computed once
and shared by all chats that have it; the rest is read in batches. What a batch holds is fixed by
the list of chats alone, so the same list gives the same bits. Knows nothing of what a prompt
means, of search, caches and budgets. Needs torch: import it only where torch may be loaded.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

import torch
from torch import Tensor

from remask.errors import ConfigError, NumericsError
from remask.models.backbone.attention import KVCache
from remask.models.backbone.transformer import Backbone
from remask.ports import Reply, TargetModel
from remask.types import Chat

_TEMPLATE = "chatml-1"  # in the identity: raise it when the layout of a chat changes
# Limits of memory. One token's keys and values take 23 kB in bf16, so 16,384 take 0.4 GB.
MAX_BATCH_TOKENS = 16_384  # read at once, the shared system message counted for every row
MAX_PREFIX_TOKENS = 16_384  # of system messages kept for later calls
MAX_BATCH_ROWS = 16  # sorted by length, smaller batches waste less on padding


@dataclass(frozen=True, slots=True)
class _Row:
    """One chat as token ids: what is shared, and what is its own."""

    index: int  # in the caller's list
    prefix: tuple[int, ...]  # the system turn; empty where the chat has none
    rest: list[int]  # the other turns and the opening of the answer

    @property
    def length(self) -> int:
        return len(self.prefix) + len(self.rest)


class BuiltinTarget(TargetModel):
    """A Target that can choose, around `backbone`. Use it from one thread at a time."""

    chooses = True

    def __init__(self, backbone: Backbone, max_tokens: int = 64) -> None:
        if max_tokens < 1:
            raise ConfigError(f"max_tokens is {max_tokens}; give 1 or more")
        self.max_tokens = max_tokens
        self.identity = f"builtin:{backbone.identity}:{_TEMPLATE}:max_tokens={max_tokens}"
        self._backbone = backbone
        self._prefixes: OrderedDict[tuple[int, ...], KVCache] = OrderedDict()
        self._stops = {backbone.token_id("<|im_end|>"), backbone.token_id("<|endoftext|>")}

    @torch.inference_mode()
    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        """Greedy answers of at most `max_tokens` tokens, in order; `repeat` changes nothing.

        A chat that does not fit the model's window becomes a Reply with `error`.
        """
        return self._in_batches(chats, self.max_tokens, 0, self._generate)

    @torch.inference_mode()
    def choose(self, chats: Sequence[Chat], options: Sequence[str]) -> list[Reply]:
        """The most probable of `options`, each the full text of an answer, for every chat.

        `logps` holds the log-probability (nats) of all tokens of each option behind the opening
        of the answer; the end of the turn is not part of it. The first of equals wins. Raises
        ConfigError where an option is empty.
        """
        answers = [self._backbone.encode(option) for option in options]
        if not answers or not all(answers):
            raise ConfigError(f"cannot choose between {list(options)}; give texts, none empty")
        columns = zip(*answers, strict=False)  # up to the end of the shortest
        shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))

        def decide(batch: list[_Row]) -> list[Reply]:
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

        return self._in_batches(chats, max(map(len, answers)), shared, decide)

    # -- batches ------------------------------------------------------------------------------

    def _in_batches(
        self,
        chats: Sequence[Chat],
        answer_tokens: int,
        read_ahead: int,
        work: Callable[[list[_Row]], list[Reply]],
    ) -> list[Reply]:
        """One reply per chat, in order. `read_ahead`: tokens of the answer read with the chat."""
        replies: dict[int, Reply] = {}
        rows = []
        for index, chat in enumerate(chats):
            row = self._row(index, chat)
            if row.length + answer_tokens > self._backbone.window:
                replies[index] = Reply("", error=self._too_long(row.length, answer_tokens))
            else:
                rows.append(row)
        for batch in _batches(rows, read_ahead):
            for row, reply in zip(batch, work(batch), strict=True):
                replies[row.index] = reply
        return [replies[index] for index in range(len(chats))]

    def _row(self, index: int, chat: Chat) -> _Row:
        turns = [self._backbone.turn(message.role, message.content) for message in chat]
        has_system = bool(chat) and chat[0].role == "system"
        prefix = tuple(turns.pop(0)) if has_system else ()
        rest = [token for turn in turns for token in turn]
        return _Row(index, prefix, rest + self._backbone.opening("assistant"))

    def _too_long(self, length: int, answer_tokens: int) -> str:
        return (
            f"the chat has {length} tokens, which leaves no room for an answer of {answer_tokens} "
            f"in the model's context of {self._backbone.window}; shorten the prompt or the input"
        )

    def _prefix(self, ids: tuple[int, ...]) -> KVCache | None:
        """Keys and values of a system turn. Read alone, so they never depend on a batch."""
        if not ids:
            return None
        if ids in self._prefixes:
            self._prefixes.move_to_end(ids)
            return self._prefixes[ids]
        tokens = torch.tensor([ids])
        _, memory = self._backbone.read(tokens, torch.ones_like(tokens, dtype=torch.bool))
        self._prefixes[ids] = memory
        while len(self._prefixes) > 1 and sum(map(len, self._prefixes)) > MAX_PREFIX_TOKENS:
            self._prefixes.popitem(last=False)
        return memory

    # -- choosing -----------------------------------------------------------------------------

    def _score(self, batch: list[_Row], answers: Sequence[list[int]], shared: int) -> Tensor:
        """Log-probability of every answer for every row: (B, answers).

        The `shared` first tokens of all answers are read with the chat. What an answer has
        behind its first own token is read in a second pass, over the keys and values of the first.
        """
        past = self._prefix(batch[0].prefix)
        common = answers[0][:shared]
        ids, attention_mask = _pad([row.rest + common for row in batch])
        tails = [answer[shared:] for answer in answers]
        deep = [column for column, tail in enumerate(tails) if len(tail) > 1]
        if deep:
            hidden, memory = self._backbone.read(ids, attention_mask, past)
        else:
            hidden = self._backbone.read_hidden(ids, attention_mask, past)
        rows = torch.arange(len(batch))
        last = attention_mask.sum(1) - 1  # (B,)
        table = torch.zeros(len(batch), len(answers))
        if shared:
            at = last[:, None] - shared + torch.arange(shared)  # predict the common tokens
            want = torch.tensor(common).expand(len(batch), -1)
            table += self._logps(hidden[rows[:, None], at], want).sum(1, keepdim=True)
        own = [column for column, tail in enumerate(tails) if tail]
        first = self._backbone.logits(hidden[rows, last]).log_softmax(-1)  # (B, V)
        table[:, own] += first[:, [tails[column][0] for column in own]]
        if deep:
            table[:, deep] += self._score_tails(memory, [tails[column] for column in deep])
        return _finite(table)

    def _score_tails(self, memory: KVCache, tails: Sequence[list[int]]) -> Tensor:
        """Log-probability of each tail without its first token, for every row: (B, tails)."""
        ids, attention_mask = _pad([tail[:-1] for tail in tails])
        want, _ = _pad([tail[1:] for tail in tails])
        rows = len(memory.attention_mask)
        row = torch.arange(rows).repeat_interleave(len(tails))
        tail = torch.arange(len(tails)).repeat(rows)
        step = max(1, MAX_BATCH_TOKENS // (memory.attention_mask.shape[1] + ids.shape[1]))
        sums = []
        for start in range(0, len(row), step):
            r, t = row[start : start + step], tail[start : start + step]
            hidden = self._backbone.read_hidden(ids[t], attention_mask[t], memory.select(r))
            logps = self._logps(hidden, want[t]).masked_fill(~attention_mask[t], 0.0)
            sums.append(logps.sum(1))
        return torch.cat(sums).view(rows, len(tails))

    def _logps(self, hidden: Tensor, want: Tensor) -> Tensor:
        """Log-probability of the token `want` (N, L) behind each hidden state (N, L, d): (N, L).

        One position at a time, because the logits of all of them would fill the memory.
        """
        columns = []
        for position in range(want.shape[1]):
            logits = self._backbone.logits(hidden[:, position])  # (N, V)
            chosen = logits.gather(1, want[:, position, None])[:, 0]
            columns.append(chosen - logits.logsumexp(-1))
        return torch.stack(columns, 1)

    # -- answering ----------------------------------------------------------------------------

    def _generate(self, batch: list[_Row]) -> list[Reply]:
        """Greedy decoding; rows that have ended leave the batch."""
        written: list[list[int]] = [[] for _ in batch]
        ids, attention_mask = _pad([row.rest for row in batch])
        hidden, memory = self._backbone.read(ids, attention_mask, self._prefix(batch[0].prefix))
        hidden = hidden[torch.arange(len(batch)), attention_mask.sum(1) - 1]  # (B, d)
        active = list(range(len(batch)))
        while active:
            tokens = _finite(self._backbone.logits(hidden)).argmax(-1)  # (active,)
            going = []
            for place, (row, token) in enumerate(zip(active, tokens.tolist(), strict=True)):
                if token in self._stops:
                    continue
                written[row].append(token)
                if len(written[row]) < self.max_tokens:
                    going.append(place)
            if going and len(going) < len(active):
                memory = memory.select(torch.tensor(going))
            active = [active[place] for place in going]
            if active:
                one = torch.ones(len(active), 1, dtype=torch.bool)
                states, memory = self._backbone.read(tokens[going][:, None], one, memory)
                hidden = states[:, 0]
        return [
            Reply(
                self._backbone.decode(tokens_out),
                input_tokens=row.length,
                output_tokens=len(tokens_out),
            )
            for row, tokens_out in zip(batch, written, strict=True)
        ]


def _batches(rows: Sequence[_Row], read_ahead: int) -> Iterator[list[_Row]]:
    """Rows with the same prefix and similar length together, within the limits of memory."""
    in_order = sorted(rows, key=lambda row: (row.prefix, len(row.rest), row.index))
    for _, group in groupby(in_order, key=lambda row: row.prefix):
        batch: list[_Row] = []
        for row in group:
            tokens = (len(batch) + 1) * (row.length + read_ahead)  # the longest comes last
            if batch and (len(batch) == MAX_BATCH_ROWS or tokens > MAX_BATCH_TOKENS):
                yield batch
                batch = []
            batch.append(row)
        yield batch


def _pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids (B, T) padded on the right, and which of them are real."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    attention_mask = torch.arange(width) < torch.tensor([[len(row)] for row in rows])
    return ids, attention_mask


def _finite(numbers: Tensor) -> Tensor:
    if not torch.isfinite(numbers).all():
        raise NumericsError("the built-in target produced NaN or infinite numbers")
    return numbers
