"""Read trajectories of agents on τ-bench and τ²-bench, with their rewards.

The benchmark has the right calls of each task, which are the desired response of a failed
trajectory. Sources: tau-bench `tau_bench/types.py` (EnvRunResult), tau2-bench
`src/tau2/data_model/simulation.py` (Results).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from remask.data.messages import (
    as_text,
    format_tool_call,
    join_text,
    keep_objects,
    name_kind,
    parse_conversation,
)
from remask.data.trace_record import Item, Rating, Record, Source, TraceFormat, UnreadableRecord

NO_CALLS = "(no call that changes anything)"
UNIT_SCALE = (0.0, 1.0)


def matches_tau(value: Any) -> bool:
    return type(value) is dict and type(value.get("traj")) is list and "reward" in value


def read_tau(value: Any, source: Source) -> Iterator[Item]:
    """Yield one trajectory."""
    system, turns = parse_conversation(value["traj"])
    info = _as_object(value.get("info"))
    if info.get("error"):
        raise UnreadableRecord(f"the trial failed: {join_text(info['error'])[:80]}")
    assessment = _as_object(info.get("reward_info"))
    actions = assessment.get("actions", _as_object(info.get("task")).get("actions"))
    reward = value["reward"]
    rating = Rating("reward", _require_number(reward), "reward", scale=UNIT_SCALE)
    id = f"task-{as_text(value.get('task_id'))}-trial-{as_text(value.get('trial'))}"
    desired = _format_calls(actions) if reward != 1 else None
    yield Record(id, system, turns, (rating,), desired, source)


def matches_tau2(value: Any) -> bool:
    return type(value) is dict and type(value.get("simulations")) is list and "tasks" in value


def read_tau2(value: Any, source: Source) -> Iterator[Item]:
    """Yield the simulations of a results file. The policy is the system prompt."""
    wanted = {
        as_text(task.get("id")): _as_object(task.get("evaluation_criteria")).get("actions")
        for task in keep_objects(value["tasks"])
    }
    info = _as_object(value.get("info"))
    policy = _as_object(info.get("environment_info")).get("policy")
    for number, simulation in enumerate(value["simulations"]):
        where = replace(source, entry=f"simulations[{number}]")
        try:
            yield _build_record(simulation, policy, wanted, where)
        except UnreadableRecord as error:
            yield where.reject(str(error))


def _build_record(simulation: Any, policy: object, wanted: dict[str, Any], source: Source) -> Record:
    if not isinstance(simulation, dict):
        raise UnreadableRecord(f"expected a simulation, found {name_kind(simulation)}")
    assessment = _as_object(simulation.get("reward_info"))
    if "reward" not in assessment:
        ended = join_text(simulation.get("termination_reason")) or "unknown"
        raise UnreadableRecord(f"holds no reward (termination reason: {ended[:40]})")
    policy = simulation.get("policy") or policy
    system, turns = parse_conversation(simulation.get("messages"), policy)
    missed = [
        join_text(check.get("nl_assertion"))
        for check in keep_objects(assessment.get("nl_assertions"))
        if check.get("met") is False
    ]
    comment = "not met: " + "; ".join(missed) if missed else ""
    rating = Rating("reward", _require_number(assessment["reward"]), "reward", comment, scale=UNIT_SCALE)
    task = as_text(simulation.get("task_id"))
    desired = _format_calls(wanted.get(task)) if assessment["reward"] != 1 else None
    id = as_text(simulation.get("id")) or f"task-{task}-trial-{as_text(simulation.get('trial'))}"
    return Record(id, system, turns, (rating,), desired, source)


def _format_calls(actions: object) -> str | None:
    """Return the right calls of the agent; None if the benchmark does not have them."""
    if not isinstance(actions, list):
        return None
    calls = [
        format_tool_call(action.get("name"), action.get("kwargs", action.get("arguments")))
        for action in keep_objects(actions)
        if action.get("requestor") != "user"
    ]
    return "\n".join(calls) or NO_CALLS


def _as_object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _require_number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableRecord(f"the reward is {name_kind(value)}, not a number")
    return float(value)


FORMATS = (
    TraceFormat("tau-bench", matches_tau, read_tau),
    TraceFormat("tau2-bench", matches_tau2, read_tau2),
)
