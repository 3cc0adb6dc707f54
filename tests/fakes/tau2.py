"""A real HTTP server that plays both sides of tau2 from the tasks' own reference actions.

OpenAI-compatible, on the loopback. The model "user" is the customer, the model "agent" the agent.
Which task is played follows from the customer's system message, and how far it has come from the
messages alone; so the server keeps no state, and samples may run in any order and at once.
Known answer: the reference actions score 1, those that `errs` names go wrong and score 0.
"""

import json
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fakes.server import Behaviour, Body, Handler, completion

with warnings.catch_warnings():  # of a dependency of inspect-evals, while it is imported
    warnings.simplefilter("ignore", DeprecationWarning)
    from inspect_evals.tau2.airline.dataset import read_dataset as airline
    from inspect_evals.tau2.data_model.tasks import Action, Task
    from inspect_evals.tau2.retail.dataset import read_dataset as retail
    from inspect_evals.tau2.telecom.dataset import read_dataset as telecom


READERS = {"airline": airline, "retail": retail, "telecom": telecom}
READ_ONLY = re.compile(r"get_|find_|search_|list_|calculate|transfer_|think|check_|can_|run_")
Errs = Callable[[str, str], bool]  # (id of the task, the agent's system message) -> goes wrong


@dataclass(frozen=True)
class Round:
    """What the agent does before it speaks, and then the customer before the answer."""

    agent: tuple[Action, ...]
    user: tuple[Action, ...]


class Tau2:
    """Reference actions of one domain as a behaviour of fakes.server."""

    def __init__(self, domain: str, errs: Errs = lambda task, policy: False) -> None:
        self._by_scenario: dict[str, str] = {}
        self.tasks: dict[str, Task] = {}
        for sample in READERS[domain](f"{domain.title()}Agent", shuffle=False):
            scenario = sample.input[0].text.strip()
            if scenario not in self._by_scenario:  # many of telecom look alike to the customer
                self._by_scenario[scenario] = str(sample.id)
                self.tasks[str(sample.id)] = Task.model_validate(sample.metadata["task"])
        self._errs = errs

    def changing(self) -> list[str]:
        """The tasks whose reference actions change something that a scorer looks at."""
        return [id for id, task in self.tasks.items() if any(map(_changes, _actions(task)))]

    def behave(self) -> Behaviour:
        def answer(handler: Handler, body: Body) -> None:
            play = self._user if body["model"] == "user" else self._agent
            handler.send(200, json.dumps(play(body["messages"])).encode())

        return answer

    def _user(self, messages: Sequence[Body]) -> Body:
        id = self._by_scenario[_text(messages[0]).strip()]
        spoken = [m for m in messages if m["role"] == "assistant" and not m.get("tool_calls")]
        rounds = _rounds(self.tasks[id])
        if not spoken:
            return completion(f"Case {id}: please help me.")
        turn = len(spoken) - 1
        wrong = self._errs(id, _policy(messages))
        done = _calls_since(messages, "user")
        if done < len(rounds[turn].user):
            return _call(rounds[turn].user[done], wrong)
        return completion("###STOP###" if turn + 1 == len(rounds) else "Done.")

    def _agent(self, messages: Sequence[Body]) -> Body:
        first = next(_text(m) for m in messages if m["role"] == "user")
        id = re.match(r"Case (.*): please", first)[1]
        task, policy = self.tasks[id], _text(messages[0])
        rounds = _rounds(task)
        turn = sum(m["role"] == "user" for m in messages) - 1
        wrong = self._errs(id, policy)
        done = _calls_since(messages, "user")
        if done < len(rounds[turn].agent):
            return _call(rounds[turn].agent[done], wrong)
        # The customer reads only what is said, so a wrong policy is told to it here.
        mark = " (I may be wrong.)" if wrong else ""
        last = turn + 1 == len(rounds)
        told = ", ".join(task.evaluation_criteria.communicate_info or []) if last else ""
        return completion(f"Please go on. {told}{mark}".strip())


def _rounds(task: Task) -> list[Round]:
    rounds: list[Round] = []
    agent: list[Action] = []
    user: list[Action] = []
    for action in _actions(task):
        if action.requestor == "user":
            user.append(action)
        else:
            if user:
                rounds.append(Round(tuple(agent), tuple(user)))
                agent, user = [], []
            agent.append(action)
    return [*rounds, Round(tuple(agent), tuple(user))]


def _actions(task: Task) -> list[Action]:
    return list(task.evaluation_criteria.actions or [])


def _changes(action: Action) -> bool:
    return not READ_ONLY.match(action.name)


def _policy(messages: Sequence[Body]) -> str:
    """For the customer: "" unless the agent has said that it may be wrong."""
    return "wrong" if any("I may be wrong" in _text(m) for m in messages) else "right"


def _calls_since(messages: Sequence[Body], role: str) -> int:
    """Calls of tools since the last message of `role`."""
    count = 0
    for message in reversed(messages):
        if message["role"] == role:
            break
        count += len(message.get("tool_calls") or ())
    return count


def _call(action: Action, wrong: bool) -> Body:
    name, arguments = action.name, dict(action.arguments)
    if wrong and _changes(action):
        arguments = {key: _corrupted(value) for key, value in arguments.items()}
        if not arguments or action.compare_args == []:  # whatever the arguments, it would count
            name = f"{name}0"
    body = completion(None, "tool_calls")
    body["choices"][0]["message"]["tool_calls"] = [
        {
            "id": f"call_{action.action_id}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
    ]
    return body


def _corrupted(value: Any) -> Any:
    if isinstance(value, str):
        return f"{value}0"
    return value + 1 if isinstance(value, int | float) else value


def _text(message: Body) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(p.get("text", "") for p in content)
