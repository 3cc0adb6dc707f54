"""The scripted denoiser, and that the room stays light."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from fakes.scripted_denoiser import ScriptedDenoiser
from remask.ports import Hole

CANVAS = ("Be ", Hole("kind", 1), " and ", Hole("x", 0), Hole("brief", 2))


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 9))
def test_fills_differ_within_a_call_and_repeat_with_the_seed(n: int, k: int, seed: int) -> None:
    denoiser = ScriptedDenoiser(tuple("abcde"[:n]))
    fills = denoiser.infill((), [CANVAS] * k, seed)
    assert fills == denoiser.infill((), [CANVAS] * k, seed)
    assert len({fill.texts for fill in fills}) == k
    assert all(fill.texts[0] and fill.texts[1] == "" and fill.texts[2] for fill in fills)


def test_seeds_differ_and_tokens_are_words() -> None:
    denoiser = ScriptedDenoiser(("a", "b", "c", "d"))
    assert len({denoiser.infill((), [CANVAS], seed)[0].texts for seed in range(20)}) > 2
    assert denoiser.count("three little words") == 3
    assert denoiser.identity != ScriptedDenoiser(("a",)).identity


def test_light_rooms_load_no_torch() -> None:
    code = (
        "import sys, remask.dlm, remask.models.backbone, remask.dlm.families, remask.dlm.canvas; "
        "assert not {'torch', 'transformers', 'tokenizers', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
