"""Traces that the vendors' own SDKs write today are read whole: counts, feedback and reasons.

Each SDK gets an environment of its own. A server on the loopback plays the model: it repeats the
message in capitals, and refuses the message "boom".
"""

import json
import os
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.server import Body, Handler, Server, answer, status
from remask.data.trace_reader import read_records
from remask.data.trace_record import Record, RejectedRecord

pytestmark = pytest.mark.slow

SYSTEM = "Answer in capitals."
CALLS = f"""
import json, sys
import openai
out = sys.argv[1]
client = openai.OpenAI(max_retries=0)
def ask():
    for text in ("paris", "rome", "boom"):
        messages = [{{"role": "system", "content": {SYSTEM!r}}}, {{"role": "user", "content": text}}]
        try:
            client.chat.completions.create(model="m", messages=messages)
        except openai.BadRequestError:
            pass
"""
CONSOLE = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=open(out, "w"))))
"""


@dataclass(frozen=True)
class Vendor:
    """An SDK: what is installed, the script that writes traces, and what is read of them."""

    packages: tuple[str, ...]
    script: str
    format: str
    file: str = "traces.jsonl"
    ratings: tuple[tuple[str, object, str], ...] = ()


VENDORS = {
    "openinference": Vendor(
        ("openai", "opentelemetry-sdk", "openinference-instrumentation-openai"),
        CALLS
        + CONSOLE
        + """
from openinference.instrumentation.openai import OpenAIInstrumentor
OpenAIInstrumentor().instrument(tracer_provider=provider)
ask()
""",
        "span",
    ),
    "opentelemetry": Vendor(
        ("openai", "opentelemetry-sdk", "opentelemetry-instrumentation-genai-openai"),
        CALLS
        + CONSOLE
        + """
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
OpenAIInstrumentor().instrument(tracer_provider=provider)
ask()
""",
        "span",
    ),
    "langfuse": Vendor(
        ("openai", "langfuse"),
        CALLS
        + CONSOLE
        + """
from langfuse import Langfuse
Langfuse(public_key="pk", secret_key="sk", host="http://127.0.0.1:9", tracer_provider=provider)
from langfuse.openai import openai as traced
client = traced.OpenAI(max_retries=0)
ask()
provider.shutdown()
""",
        "span",
    ),
    "mlflow": Vendor(
        ("openai", "mlflow"),
        CALLS
        + """
import mlflow
mlflow.set_tracking_uri("sqlite:///" + out + ".db")
mlflow.openai.autolog()
ask()
mlflow.flush_trace_async_logging()
traces = mlflow.search_traces(return_type="list")
good = [trace.info.trace_id for trace in traces if trace.info.state.value == "OK"]
source = mlflow.entities.AssessmentSource("HUMAN", "a")
for id in good:
    mlflow.log_feedback(trace_id=id, name="helpful", value=False, rationale="Too loud.", source=source)
mlflow.search_traces().to_json(out, orient="records", lines=True)
""",
        "mlflow",
        ratings=(("helpful", False, "Too loud."),),
    ),
    "langsmith": Vendor(
        ("openai", "langsmith"),
        CALLS
        + """
import langsmith
from langsmith.wrappers import wrap_openai
runs = {}
class Kept(langsmith.Client):
    def create_run(self, name, inputs, run_type, **more):
        runs[str(more["id"])] = {"name": name, "inputs": inputs, "run_type": run_type, **more}
    def update_run(self, run_id, **more):
        runs[str(run_id)].update({key: value for key, value in more.items() if value is not None})
client = wrap_openai(client, tracing_extra={"client": Kept(api_key="k")})
ask()
with open(out, "w") as file:
    for id, run in runs.items():
        file.write(json.dumps(run, default=str) + "\\n")
        if not run.get("error"):
            feedback = {"key": "helpful", "run_id": id, "score": 0, "comment": "Too loud."}
            file.write(json.dumps(feedback) + "\\n")
""",
        "langsmith",
        ratings=(("helpful", 0, "Too loud."),),
    ),
    "inspect": Vendor(
        ("openai", "inspect-ai"),
        f"""
import os, sys
from pathlib import Path
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.scorer import match
from inspect_ai.solver import generate, system_message
samples = [Sample(input=text, target=text.upper()) for text in ("paris", "rome", "boom")]
task = Task(dataset=samples, solver=[system_message({SYSTEM!r}), generate()], scorer=match())
options = {{"model_args": {{"responses_api": False}}, "max_retries": 0, "fail_on_error": False}}
(log,) = eval(task, model="openai/m", display="none", log_dir=sys.argv[1] + ".logs", **options)
Path(log.location.removeprefix("file://")).rename(sys.argv[1])
""",
        "inspect",
        "traces.eval",
        ratings=(("match", "C", ""),),
    ),
}


def refuse_boom(handler: Handler, body: Body) -> None:
    behave = status(400, "no") if body["messages"][-1]["content"] == "boom" else answer()
    handler.close_connection = True
    behave(handler, body)


@pytest.mark.parametrize("name", VENDORS)
def test_what_the_sdk_of_a_vendor_writes_is_read_whole(name: str, tmp_path: Path) -> None:
    vendor = VENDORS[name]
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    venv.create(tmp_path / "env", with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", *vendor.packages]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"{name} cannot be installed: {installed.stderr.strip()[-200:]}")
    path = tmp_path / vendor.file
    with Server(default=refuse_boom) as server:
        env = os.environ | {
            "OPENAI_BASE_URL": server.url,
            "OPENAI_API_KEY": "k",
            "LANGSMITH_TRACING": "true",
            "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
            "PYTHONPATH": "",
        }
        command = [str(python), "-c", vendor.script, str(path)]
        ran = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    items = list(read_records([path]))
    records = sorted((item for item in items if isinstance(item, Record)), key=lambda r: r.turns[0].text)
    rejects = [item.reason for item in items if isinstance(item, RejectedRecord)]
    assert [(r.system, r.turns[0].text, r.turns[-1].text) for r in records] == [
        (SYSTEM, "paris", "PARIS"),
        (SYSTEM, "rome", "ROME"),
    ], json.dumps(rejects)
    assert {record.source.format for record in records} == {vendor.format}
    for record in records:
        assert tuple((r.name, r.value, r.comment) for r in record.ratings) == vendor.ratings
    assert len(rejects) == 1 and "the call failed: " in rejects[0] and "400" in rejects[0]
