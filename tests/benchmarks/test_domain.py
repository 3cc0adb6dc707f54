"""benchmarks/denoiser/domain.py on a corpus of a few prompts, with the real built-in model."""

import json
from pathlib import Path

import pytest

from benchmarks.denoiser.domain import main


@pytest.mark.slow
def test_a_domain_is_trained_on_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = ("yes", "no")
    rows = [
        {
            "prompt": f"Say whether message {n} is about {about}. Answer with one word.",
            "examples": [{"input": f"It is about {about} {a}.", "output": a} for a in answers],
        }
        for about, count in (("parcels", 8), ("rivers", 6))
        for n in range(count)
    ]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(json.dumps(row) for row in rows))
    out = tmp_path / "out"
    flags = f"--data {corpus} --only parcels --out {out} --steps 1 --train 6 --others 2 --json"
    main([*flags.split(), "--held-out", "2"])
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 1 and found["trained"] == 6
    losses = (found["domain, span 4, before"], found["general, span 4, after"])
    assert [loss["prompts"] for loss in losses] == [2, 2]
    trained = (out / "domain.jsonl").read_text()
    assert trained.count("parcels") > 0 and "rivers" not in trained
    card = (out / "adapted.md").read_text()
    assert "prompt.safetensors" in card  # the shipped adapter is what it started from
