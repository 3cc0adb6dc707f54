"""Without its library an integration says in one sentence what to install."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "library"), [("gepa", "gepa"), ("dspy", "dspy"), ("mlflow", "mlflow"), ("tracking", "mlflow")]
)
def test_import_without_a_library_names_the_extra(module: str, library: str) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from remask.errors import BackendError\n"
        f"try: import remask.integrations.{module}\n"
        "except BackendError as error: print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert f"pip install 'remask[{library}" in said.stdout
    assert said.stdout.count("\n") == 1
