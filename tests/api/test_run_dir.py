"""The default folder of a run: runs/DATE-TIME."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import remask
from fakes.colours import Oracle, Phrases, dataset, rows
from remask.api.job import choose_run_dir
from remask.errors import ConfigError


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(here: Path) -> None:
    def run(number: int) -> remask.Result:
        return remask.optimize(
            "Name the colour.", dataset(), target=Oracle(), denoiser=Phrases(), max_calls=480, seed=number
        )

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, range(4)))
    assert len({result.run_dir for result in found}) == 4
    assert all((here / result.run_dir / "result.json").exists() for result in found)


def test_a_refused_run_leaves_no_folder(here: Path) -> None:
    with pytest.raises(ConfigError):
        remask.optimize("Name the colour.", rows(), target=Oracle(), denoiser=Phrases(), max_calls=5)
    assert not list(here.iterdir())


def test_a_given_folder_is_kept_where_the_run_is_refused(here: Path) -> None:
    (here / "mine").mkdir()
    with choose_run_dir("mine") as folder:
        assert folder == Path("mine")
    assert (here / "mine").is_dir()


def test_a_folder_that_cannot_be_made_is_one_sentence(here: Path) -> None:
    (here / "runs").write_text("a file")
    said = r"^the folder runs.* cannot be made .*; give --run-dir$"
    with pytest.raises(ConfigError, match=said), choose_run_dir(None):
        pass
