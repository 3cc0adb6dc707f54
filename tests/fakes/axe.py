"""axe-core on pages in a headless Chromium, where both are installed."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fakes import ROOT
from fakes.browser import CHROMIUM

AXE = Path(os.environ.get("AXE_FOLDER", "node_modules"))  # with the packages axe-core and puppeteer-core

needs_axe = pytest.mark.skipif(
    not (CHROMIUM and shutil.which("node") and (AXE / "axe-core").is_dir()),
    reason="needs Chromium, node, and axe-core and puppeteer-core in node_modules (or AXE_FOLDER)",
)


def require_accessible(*urls: str) -> None:
    """Require that axe finds nothing and nothing scrolls sideways, at 400 and 1,400 px, light and dark."""
    words = ["node", str(ROOT / "tests/runs/axe.mjs"), str(AXE.resolve()), str(CHROMIUM), *urls]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240 * len(urls))
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout):
        assert found["violations"] == [] and found["errors"] == [], found
        assert found["overflow"] <= 0, found
