"""tau2 from inspect-evals, offline: real environments and scorers, reference actions over HTTP."""

import importlib
import re
from pathlib import Path

import pytest

pytest.importorskip("inspect_evals")


from fakes.server import Server
from fakes.tau2 import Tau2
from remask.api.job import open_job
from remask.config import make_config
from remask.prompt import Prompt
from remask.runs.store import Store
from remask.tasks.inspect.setup import load, system_prompt_of

SLOPPY = "Be sloppy."
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def policy(domain: str) -> str:
    """The domain's policy as the agent's code reads it, without the tags around it."""
    module = importlib.import_module(f"inspect_evals.tau2.{domain}.agents")
    words = {"workflow": False} if domain == "telecom" else {}
    text = re.sub(r"</?policy>|</?main_policy>", "", module.get_domain_policy(**words))
    return text.split("<tech_support_policy>")[0].strip()


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
        with (
            open_job(config, run_dir=folder / "run") as job,
            Store.create(folder / "run", job.record) as store,
        ):
            job.ledger.open_store, task = store, job.task
            names = {id: str(sample.id) for id, sample in load(config).samples.items()}
            ids = [id for id in sorted(names) if names[id] in changing][:samples]
            right = task.evaluate(Prompt(baseline), ids)
            wrong = task.evaluate(Prompt(f"{baseline}\n{SLOPPY}"), ids)
            assert [(o.status, o.score) for o in right] == [("scored", 1.0)] * len(ids)
            assert [(o.status, o.score) for o in wrong] == [("scored", 0.0)] * len(ids)
            assert all(o.trace and o.trace.feedback for o in wrong)
            assert store.get_spend().calls == server.requests


DOMAINS = ("airline", "retail", "telecom")


@pytest.mark.parametrize(
    "domain", ["telecom", *(pytest.param(name, marks=pytest.mark.slow) for name in ("airline", "retail"))]
)
def test_tau2_scores_reference_actions_1_and_corrupted_ones_0(
    domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(domain, 1, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("domain", DOMAINS)
def test_tau2_system_message_contains_the_policy(domain: str) -> None:
    """Of the agent's messages and the customer's, the one that is the same in all samples."""
    message = system_prompt_of(f"inspect_evals/tau2_{domain}")
    assert message.startswith("<instructions>\n    You are a customer service agent")
    assert policy(domain) in message


@pytest.mark.slow
@pytest.mark.parametrize("domain", DOMAINS)
def test_tau2_scores_more_reference_actions(
    domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(domain, 8, tmp_path, monkeypatch)
