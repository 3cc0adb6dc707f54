"""Example queries for a prompt that comes without data: the target itself says what users write.

Knows a target and a prompt, and how an answer is read line by line. Knows nothing of budgets, of
stores and of what the queries are for; a metered target keeps what it answered, so that asking
again after a kill costs nothing. The wording is our own.
"""

import re
from collections.abc import Sequence
from itertools import cycle

from remask.errors import BudgetSpent, TargetUnreliable
from remask.ports import TargetModel
from remask.prompt import Prompt
from remask.sanitize import clean
from remask.types import Chat, Message

QUERIES_PER_CALL = 10  # queries asked for at a time: more would be cut at the usual answer length
MIN_QUERIES = 12  # with fewer the splits have next to no rows
MAX_CALL_FACTOR = 4  # calls made at most, over the number that would do if every line were new
MAX_STALE_CALLS = 3  # calls in a row without a new query that end the asking
MAX_QUERY_CHARS = 1500  # characters of a query
MAX_SHOWN_QUERIES = 20  # queries of earlier answers that the target is told not to repeat
QUERY_KINDS = (
    "everyday requests", "short questions", "longer messages with several details",
    "unusual but honest requests", "complaints and difficult cases",
    "messages in which something is missing", "follow-up questions", "vague messages",
)  # fmt: skip

_LINE_START = re.compile(
    r"^(?:[-*•]|\d{1,3}[.):])\s+|^(?:user|message|query)(?:\s+\d{1,3})?:\s*", re.I
)
_QUOTED = re.compile(r"^[\"“'](.*)[\"”']$")


def count_max_calls(n: int) -> int:
    """Calls that `n` queries take at most."""
    return MAX_CALL_FACTOR * -(-n // QUERIES_PER_CALL)


def ask_queries(target: TargetModel, prompt: Prompt, n: int) -> tuple[str, ...]:
    """Up to `n` different queries that users of `prompt` might send.

    A spent budget and a target that repeats itself end the asking early. Raises TargetUnreliable
    where fewer than LEAST came, and TargetRefused of the target.
    """
    found: dict[str, str] = {}  # by what counts as the same query
    why, stale = "", 0
    for kind, _ in zip(cycle(QUERY_KINDS), range(count_max_calls(n)), strict=False):
        try:
            (reply,) = target.respond(
                [_build_chat(prompt, kind, list(found.values())[-MAX_SHOWN_QUERIES:])]
            )
        except BudgetSpent as spent:
            why = f"; the budget was spent: {spent}"
            break
        before = len(found)
        why = f"; the last call failed: {reply.error}" if reply.error else why
        for query in () if reply.error else read_queries(reply.text):
            found.setdefault(query.casefold(), query)
        stale = 0 if len(found) > before else stale + 1
        if len(found) >= n or stale == MAX_STALE_CALLS:
            break
    if len(found) < min(n, MIN_QUERIES):
        raise TargetUnreliable(
            f"the target wrote {len(found)} usable example queries, but at least "
            f"{min(n, MIN_QUERIES)} are needed{why}; give messages of your users with --data"
        )
    return tuple(found.values())[:n]


def read_queries(text: str) -> list[str]:
    """The messages in an answer, one a line, without numbers, bullets and quotes."""
    found = []
    for line in text.splitlines():
        query = clean(_LINE_START.sub("", line.strip()))
        if quoted := _QUOTED.match(query):
            query = quoted[1].strip()
        heading = query.endswith(":") or query.startswith("#")  # "Here are ten messages:"
        if 1 < len(query) <= MAX_QUERY_CHARS and any(map(str.isalpha, query)) and not heading:
            found.append(query)
    return found


def _build_chat(prompt: Prompt, kind: str, before: Sequence[str]) -> Chat:
    """One request. It differs from the last one even where the target decodes greedily."""
    task = (
        f"Write a numbered list of {QUERIES_PER_CALL} different messages that users could send to "
        f"an assistant. The assistant has these instructions:\n{prompt.text}\n\n"
        f"The messages are {kind}, each in the user's own words."
    )
    if before:
        known = "\n".join(f"- {query}" for query in before)
        task += f"\n\nThese are written already; write other ones:\n{known}"
    return (Message("user", task),)
