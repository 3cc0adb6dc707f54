"""Ask the target for example queries, for a prompt without data.

A metered target caches its answers, so a resumed run does not pay for them twice. The wording of
the request is our own.
"""

import re
from collections.abc import Sequence
from itertools import cycle

from remask.errors import BudgetSpent, TargetUnreliable
from remask.ports import TargetModel
from remask.prompt import Prompt
from remask.sanitize import clean
from remask.types import Chat, Message

QUERIES_PER_CALL = 10  # a longer list would exceed the usual limit on answers
MIN_QUERIES = 12  # with fewer, the splits would have hardly any rows
MAX_CALL_FACTOR = 4  # calls at most, as a multiple of the calls needed if every query is new
MAX_STALE_CALLS = 3  # stop after this many calls in a row without a new query
MAX_QUERY_CHARS = 1500
MAX_SHOWN_QUERIES = 20  # earlier queries that the request shows, so that they are not repeated
QUERY_KINDS = (
    "everyday requests", "short questions", "longer messages with several details",
    "unusual but honest requests", "complaints and difficult cases",
    "messages in which something is missing", "follow-up questions", "vague messages",
)  # fmt: skip

_LABEL = re.compile(r"^(?:[-*•]|\d{1,3}[.):])\s+|^(?:user|message|query)(?:\s+\d{1,3})?:\s*", re.I)
_QUOTED = re.compile(r"^[\"“'](.*)[\"”']$")


def count_max_calls(n: int) -> int:
    """Return the largest number of calls that `n` queries can take."""
    return MAX_CALL_FACTOR * -(-n // QUERIES_PER_CALL)


def ask_queries(target: TargetModel, prompt: Prompt, n: int) -> tuple[str, ...]:
    """Return up to `n` different queries that users of `prompt` might send.

    Stops early if the budget is spent or the target repeats itself. Raises TargetUnreliable if
    there are fewer than MIN_QUERIES, and TargetRefused as the target does.
    """
    found: dict[str, str] = {}  # by the case-folded query
    why, stale = "", 0
    for kind, _ in zip(cycle(QUERY_KINDS), range(count_max_calls(n)), strict=False):
        try:
            (reply,) = target.respond([_build_chat(prompt, kind, list(found.values())[-MAX_SHOWN_QUERIES:])])
        except BudgetSpent as spent:
            why = f"; the budget is spent: {spent}"
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
    """Return the queries in an answer, one per line, without numbers, bullets and quotes."""
    found = []
    for line in text.splitlines():
        query = clean(_LABEL.sub("", line.strip()))
        if quoted := _QUOTED.match(query):
            query = quoted[1].strip()
        heading = query.endswith(":") or query.startswith("#")  # "Here are ten messages:"
        if 1 < len(query) <= MAX_QUERY_CHARS and any(map(str.isalpha, query)) and not heading:
            found.append(query)
    return found


def _build_chat(prompt: Prompt, kind: str, before: Sequence[str]) -> Chat:
    """Build one request. It differs from the last one, so a greedy target gives other answers."""
    task = (
        f"Write a numbered list of {QUERIES_PER_CALL} different messages that users could send to "
        f"an assistant. The assistant has these instructions:\n{prompt.text}\n\n"
        f"The messages are {kind}, each in the user's own words."
    )
    if before:
        known = "\n".join(f"- {query}" for query in before)
        task += f"\n\nThese are written already; write other ones:\n{known}"
    return (Message("user", task),)
