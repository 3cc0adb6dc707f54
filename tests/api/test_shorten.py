"""`remask.shorten`: the search of the command of that name, from Python."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import remask
from fakes.scripted_denoiser import ScriptedDenoiser
from remask.api.optimize import load_config
from remask.api.shorten import SHORTEN_DEFAULTS
from remask.errors import ConfigError

ROWS = [(f"item {n}", ("blue", "red")[n % 2]) for n in range(500)]
PROMPT = "Read the item. Mind the weather. Answer with a colour. Ask nobody."
DENOISER = ScriptedDenoiser(("Answer kindly.", "Think twice."))


def answer(messages: list[dict[str, str]]) -> str:
    right = ("blue", "red")[int(messages[-1]["content"].split()[-1]) % 2]
    return right if "colour" in messages[0]["content"] else "green"


def shorten(folder: Path, **more: Any) -> remask.Result:
    return remask.shorten(
        PROMPT, ROWS, target=answer, denoiser=DENOISER, run_dir=folder, max_calls=3000, **more
    )


def test_a_prompt_is_shortened_and_resumed(tmp_path: Path) -> None:
    def stop(event: object, state: object, spend: remask.ports.CallBook) -> None:
        if type(event).__name__ == "Tested":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shorten(tmp_path / "run", within=2, on_event=stop)
    cut = remask.resume(tmp_path / "run", data=ROWS, target=answer, denoiser=DENOISER)
    whole = asyncio.run(
        remask.shorten_async(
            PROMPT,
            ROWS,
            target=answer,
            denoiser=DENOISER,
            max_calls=3000,
            search=remask.Search(within=2),
            run_dir=tmp_path / "whole",
        )
    )
    assert cut.verdict == whole.verdict == "improved" and cut.prompt == whole.prompt
    assert len(cut.prompt) < len(PROMPT) / 2 and "colour" in cut.prompt and cut.prefer == "prompt_tokens"
    search = load_config(tmp_path / "run").search
    assert search.goal == "preferred" and search.within == 2 and search.demos == 0
    assert list(search.maskers) == SHORTEN_DEFAULTS["maskers"]


def test_a_given_search_is_kept_but_for_the_goal(tmp_path: Path) -> None:
    shorten(tmp_path / "run", search=remask.Search(maskers=["delete"], candidates=4, prefer="shortest"))
    search = load_config(tmp_path / "run").search
    assert (*search.maskers, search.candidates, search.within) == ("delete", 4, 1)


@pytest.mark.parametrize("search", [{"prefer": "latency"}, {"demos": 2}])
def test_a_search_for_something_else_is_refused(tmp_path: Path, search: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="shorten makes prompts shorter; leave prefer and demos out"):
        shorten(tmp_path / "run", search=remask.Search(**search))
    assert not (tmp_path / "run").exists()
