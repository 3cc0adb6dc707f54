"""Print the oldest release of each dependency that pyproject.toml allows, as pip constraints.

    python .ci/oldest.py [EXTRA ...]

Only torch is left out: CI pins it in every environment, since another release of it would cost
hundreds of megabytes on each run.
"""

import re
import sys
import tomllib
from pathlib import Path


def main() -> None:
    path = Path(__file__).parent.parent / "pyproject.toml"
    project = tomllib.loads(path.read_text("utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in sys.argv[1:]:
        wanted += project["optional-dependencies"][extra]
    for requirement in wanted:
        found = re.match(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", requirement)
        if found is None:
            sys.exit(f"{requirement}: no lower bound")
        name, version = found.groups()
        if name != "torch":
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
