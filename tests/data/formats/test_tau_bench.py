"""Trajectories of agents: rewards and right calls."""

from functools import partial
from typing import Any

from fakes.records import detected_items
from remask.data.formats.tau_bench import NO_CALLS
from remask.data.trace_record import Record, RejectedRecord

TALK = [{"role": "user", "content": "Cancel it."}, {"role": "assistant", "content": "Done."}]


items = partial(detected_items, "a.json")


def trial(reward: float, actions: object) -> dict[str, Any]:
    """One row of a tau-bench results file (tau_bench/types.py: EnvRunResult)."""
    return {
        "task_id": 3, "trial": 1, "reward": reward,
        "info": {"task": {"user_id": "u", "actions": actions},
                 "reward_info": {"reward": reward, "actions": actions}},
        "traj": [{"role": "system", "content": "Policy."}, *TALK],
    }  # fmt: skip


def results(*simulations: Any) -> dict[str, Any]:
    """A tau2-bench results file (src/tau2/data_model/simulation.py: Results)."""
    action = {"name": "cancel", "arguments": {"id": 7}, "requestor": "assistant"}
    mine = {"name": "restart", "arguments": {}, "requestor": "user"}
    return {
        "info": {"environment_info": {"domain_name": "airline", "policy": "Policy."}},
        "tasks": [{"id": "t", "evaluation_criteria": {"actions": [mine, action]}}],
        "simulations": list(simulations),
    }


def simulation(reward: float = 0.0, **more: Any) -> dict[str, Any]:
    verdict = {"reward": reward, "nl_assertions": [{"nl_assertion": "It refunds.", "met": False}]}
    return {"id": "s", "task_id": "t", "trial": 0, "messages": TALK, "reward_info": verdict, **more}


def test_tau_bench() -> None:
    action = [{"name": "cancel", "kwargs": {"id": 7}}]
    (failed,) = items(trial(0.0, action))
    assert isinstance(failed, Record)
    assert (failed.system, failed.id) == ("Policy.", "task-3-trial-1")
    assert failed.desired == "cancel(id=7)"
    (rating,) = failed.ratings
    assert (rating.value, rating.kind, rating.scale) == (0.0, "reward", (0.0, 1.0))
    (idle,) = items(trial(0.0, []))
    (won,) = items(trial(1.0, action))
    assert isinstance(idle, Record) and idle.desired == NO_CALLS
    assert isinstance(won, Record) and won.desired is None


def test_tau2_bench() -> None:
    found = items(results(simulation(), simulation(1.0), "oops", {**simulation(), "messages": 7}))
    failed, won, *broken = found
    assert isinstance(failed, Record) and isinstance(won, Record)
    assert (failed.system, failed.desired) == ("Policy.", "cancel(id=7)")
    assert failed.ratings[0].comment == "not met: It refunds."
    assert won.desired is None
    assert [item.reason for item in broken if isinstance(item, RejectedRecord)] == [
        "simulations[2]: expected a simulation, found a string",
        "simulations[3]: expected a list of messages, found a number",
    ]


def test_simulation_without_a_reward_is_rejected() -> None:
    value = simulation(reward_info=None, termination_reason="agent_error")
    (found,) = items(results(value))
    assert isinstance(found, RejectedRecord)
    assert found.reason == "simulations[0]: holds no reward (termination reason: agent_error)"
