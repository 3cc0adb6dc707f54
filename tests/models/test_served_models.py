"""A target behind one URL that vLLM or SGLang serves with several replicas, each with a queue.

The server is a stand-in on the loopback. Its answers and errors have the fields that these servers
send; the model behind them is scripted.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Semaphore

import pytest

from fakes.chats import chat
from fakes.http_run import World, finish, read_ledger, read_result, write_job
from fakes.server import Body, Handler, Server
from remask.models.openai import OpenAITarget


def dress_as_vllm(body: Body) -> Body:
    (choice,) = body["choices"]
    message = {
        **choice["message"], "refusal": None, "annotations": None, "audio": None, "function_call": None,
        "tool_calls": [], "reasoning": None, "reasoning_content": None,
    }  # fmt: skip
    return {
        **body, "service_tier": None, "system_fingerprint": None, "prompt_logprobs": None,
        "prompt_token_ids": None, "kv_transfer_params": None,
        "choices": [{**choice, "message": message, "logprobs": None, "stop_reason": None, "token_ids": None}],
        "usage": {**body["usage"], "prompt_tokens_details": None},
    }  # fmt: skip


def dress_as_sglang(body: Body) -> Body:
    (choice,) = body["choices"]
    message = {**choice["message"], "reasoning_content": None, "tool_calls": None}
    return {
        **body,
        # A strict client refuses this null.
        "metadata": {"weight_version": None},
        "choices": [{**choice, "message": message, "logprobs": None, "matched_stop": 151645}],
        "usage": {**body["usage"], "prompt_tokens_details": None, "reasoning_tokens": 0},
    }


ENGINES: dict[str, Callable[[Body], Body]] = {"vllm": dress_as_vllm, "sglang": dress_as_sglang}


@dataclass
class Replicas(World):
    """Answers on the replica with the fewest requests, which works on `slots` of them at a time."""

    count: int = 4
    slots: int = 2
    waiting: Counter[int] = field(default_factory=Counter)  # requests at each replica
    served: Counter[int] = field(default_factory=Counter)
    most: int = 0  # requests at the server at a time

    def __post_init__(self) -> None:
        self._places = [Semaphore(self.slots) for _ in range(self.count)]

    def __call__(self, handler: Handler, body: Body) -> None:
        with self.lock:
            own = min(range(self.count), key=lambda number: self.waiting[number])
            self.waiting[own] += 1
            self.served[own] += 1
            self.most = max(self.most, self.waiting.total())
        try:
            with self._places[own]:
                super().__call__(handler, body)
        finally:
            with self.lock:
                self.waiting[own] -= 1


@pytest.mark.parametrize("engine", ENGINES)
def test_replicas_with_queues_give_the_result_of_one_call_at_a_time(engine: str, tmp_path: Path) -> None:
    found = []
    for name, world, concurrency in (
        ("one", World(), 1),
        ("many", Replicas(dress=ENGINES[engine], delay=0.01), 32),
    ):
        with Server(default=world) as server:
            write_job(tmp_path / name, server, concurrency=concurrency, calls=150)
            status, errors = finish(tmp_path / name)
        assert status == 0, errors
        assert read_ledger(tmp_path / name) == {"settled": world.requests}
        found.append(read_result(tmp_path / name))
    assert isinstance(world, Replicas)
    assert found[0] == found[1]
    assert min(world.served.values()) > world.requests / world.count / 2  # all replicas work
    assert world.most > world.count * world.slots  # and never lack requests


NO_ROOM = "This model's maximum context length is 8192 tokens. However, your request has 9000 input tokens."
ERRORS = {
    "vllm": {"error": {"message": NO_ROOM, "type": "BadRequestError", "param": "input_tokens", "code": 400}},
    "sglang": {"object": "error", "message": NO_ROOM, "type": "BadRequestError", "param": None, "code": 400},
}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_request_that_is_too_long_is_told_in_the_words_of_the_server(engine: str) -> None:
    def refuse(handler: Handler, _: Body) -> None:
        handler.send(400, json.dumps(ERRORS[engine]).encode())

    with Server(default=refuse) as server, OpenAITarget("m", server.url) as target:
        assert "maximum context length is 8192 tokens" in target.respond([chat()])[0].error
        assert server.requests == 1  # it is not asked again


def test_a_router_without_a_free_replica_is_asked_again() -> None:
    def refuse(handler: Handler, _: Body) -> None:
        error = {"type": "Service Unavailable", "code": "no_available_workers", "message": "No workers"}
        handler.send(503, json.dumps({"error": error}).encode())

    with Server([refuse, refuse], World(dress=dress_as_sglang)) as server:
        with OpenAITarget("target", server.url, concurrency=1) as target:
            replies = target.respond([chat(f"item {i}") for i in range(3)])
        assert [reply.error for reply in replies] == [""] * 3 and server.requests == 5
