"""Runs without right answers: rows that are inputs alone, or that the target itself has written.

Part of the composition root, with run.py and wire.py. What a target wrote is an event of the run
before a row is made of it, so that a run that goes on never asks twice.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from remask.budget import Spend
from remask.events import Event, Sourced, State, advance, decode, encode
from remask.queries import ask_queries
from remask.target.meter import Account, Meter
from remask.wire import Job, make_target, queried_dataset

ANSWER = 256  # tokens of an answer with messages, at least allowed
Watch = Callable[[Event, State, Spend], None]


def sourced(job: Job, account: Account, watch: Watch) -> Job:
    """The job with the rows that the target writes, where it has to; as it is otherwise.

    Where no right answers are known an event says so. Raises what `ask_queries` raises.
    """
    if job.basis == "labels":
        return job
    store = account.store
    known = (event for event in map(decode, store.events()) if isinstance(event, Sourced))
    event = next(known, None)
    if event is None:
        queries = _asked(job, account) if job.basis == "prompt" else ()
        event = Sourced(job.basis, job.config.metric.name, queries)
        store.append(encode(event))
        watch(event, advance(State(), event), store.spent())
    if not event.queries:
        return job
    return replace(job, dataset=queried_dataset(job.config, event.queries))


def _asked(job: Job, account: Account) -> tuple[str, ...]:
    """What the target writes, within what the sealed test leaves of the budget."""
    config, limit = job.config.target, job.config.target.max_tokens
    limit = limit and max(limit, ANSWER)  # answers to users may be short, a list of messages is not
    wanted = job.config.data.queries or 0
    account.held = Spend(calls=job.test_calls)
    with ExitStack() as stack:
        target = make_target(config.model_copy(update={"max_tokens": limit}), job.parts.respond)
        stack.callback(target.close)
        return ask_queries(Meter(target, account, limit), job.start, wanted)
