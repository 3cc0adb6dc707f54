"""The task of a run: made, its calls booked in an account, and closed again.

Part of the composition root, beside wire.py: here rows with an answer and tasks of Inspect meet.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from remask.inspecting import check_inspect_task, open_inspect_task
from remask.ports import Target, Task
from remask.target.meter import Account, Meter
from remask.wire import Job, check_fit, make_task


def check_task(job: Job) -> None:
    """Raise what is wrong with the task or its models, as far as it shows without a call."""
    if job.config.task.name:
        check_inspect_task(job.config, job.start)
        return
    with _labelled(job, None):
        check_fit(job)


@contextmanager
def open_task(job: Job, account: Account) -> Iterator[Task]:
    """The task; the connections of its targets, a judge's too, are closed at the end."""
    if job.config.task.name:
        yield open_inspect_task(job.config, job.start, account)
        return
    with _labelled(job, account) as task:
        yield task


@contextmanager
def _labelled(job: Job, account: Account | None) -> Iterator[Task]:
    """Rows with their targets; without an account nothing would be booked: only to look at."""
    with ExitStack() as stack:

        def opened(target: Target, max_output: int | None) -> Target:
            stack.callback(target.close)
            return target if account is None else Meter(target, account, max_output)

        yield make_task(job.config, job.dataset, job.parts, opened)
