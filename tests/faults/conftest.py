"""Fixtures of the tests of faults."""

import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fakes import ROOT
from fakes.disk import Disk


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler (cc), to make system calls fail")
    library = tmp_path_factory.mktemp("disk") / "failing_disk.so"
    source = str(ROOT / "tests" / "fakes" / "failing_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), source, "-ldl"], check=True)
    opened = Disk(library)
    yield opened
    opened.close()
