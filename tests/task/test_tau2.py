"""tau2 from inspect-evals, offline: real environments and scorers, reference actions over HTTP."""

from pathlib import Path

import pytest

pytest.importorskip("inspect_evals")

from remask.config import make_config  # noqa: E402
from remask.inspecting import system_prompt_of  # noqa: E402
from remask.opening import open_task  # noqa: E402
from remask.prompt import Prompt  # noqa: E402
from remask.run import Hooks, open_account  # noqa: E402
from remask.store import Store  # noqa: E402
from remask.wire import Parts, prepare  # noqa: E402
from target.server import Server  # noqa: E402
from task.tau2 import Tau2  # noqa: E402

SLOPPY = "Be sloppy."
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def policy(domain: str) -> str:
    """The domain's policy, as it stands in the agent's system message."""
    message = system_prompt_of(f"inspect_evals/tau2_{domain}")
    assert message.startswith("<instructions>\n    You are a customer service agent")
    mark = "policy>\n"
    return message[message.index(mark) + len(mark) :].split("\n</")[0].strip()


def play(domain: str, samples: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reference actions score 1 under the policy; corrupted ones, under a sloppy one, 0."""
    monkeypatch.setenv("LOOPBACK_API_KEY", "none")
    baseline = policy(domain)
    world = Tau2(domain, errs=lambda task, said: SLOPPY in said or said == "wrong")
    changing = set(world.changing())
    with Server(default=world.behave()) as server:
        config = make_config(
            {
                "prompt": baseline,
                "task": {
                    "name": f"inspect_evals/tau2_{domain}",
                    "roles": {"user": "openai-api/loopback/user"},
                },
                "target": {
                    "model": "inspect:openai-api/loopback/agent",
                    "base_url": server.url,
                    "retries": 0,
                },
                "budget": {"calls": None},
            },
            "test",
        )
        job = prepare(config, Parts())
        with (
            Store.create(folder / "run", job.record) as store,
            open_task(job, open_account(job, store, Hooks())) as task,
        ):
            names = {e.id: str(job_sample(job, e.id)) for e in job.dataset.examples}
            ids = [id for id, name in names.items() if name in changing][:samples]
            right = task.evaluate(Prompt(baseline), ids)
            wrong = task.evaluate(Prompt(f"{baseline}\n{SLOPPY}"), ids)
            assert [(o.status, o.score) for o in right] == [("scored", 1.0)] * len(ids)
            assert [(o.status, o.score) for o in wrong] == [("scored", 0.0)] * len(ids)
            assert all(o.trace and o.trace.feedback for o in wrong)
            assert store.spent().calls == server.requests


def job_sample(job: object, id: str) -> str:
    raise NotImplementedError
