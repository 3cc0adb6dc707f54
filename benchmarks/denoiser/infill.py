"""How well adapters fill held-out prompts: nats per token against the base left to right.

    python benchmarks/infill.py --data CORPUS [--adapter FILE] [--prompts 60] [--json]
    python benchmarks/infill.py --data CORPUS --base local:FOLDER --adapter FILE

CORPUS: a folder of prompts with examples (docs/adapt.md). Held out are the same prompts that
`remask adapt --held-out 120` holds out of the same corpus; --leave-out as there. Lower is better.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from remask.dlm.adapter import SHIPPED, load_adapter
from remask.dlm.build import find_base
from remask.dlm.training.corpus import hold_out, read_cases
from remask.dlm.training.held_out import WHATS, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, default=SHIPPED)
    parser.add_argument("--base", default="embedded", help="as of remask adapt")
    parser.add_argument("--revision", help="as of remask adapt")
    parser.add_argument("--leave-out", default="", metavar="REGEX")
    parser.add_argument("--held-out", type=int, default=120)
    parser.add_argument("--prompts", type=int, default=60, help="of those, the first so many")
    parser.add_argument("--what", choices=list(WHATS), nargs="+", default=list(WHATS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    base = find_base(args.base, args.revision, device="cpu")
    adapted = load_adapter(base.backbone, args.adapter, base.family)
    _, held = hold_out(read_cases([args.data], args.leave_out), args.held_out)
    found = {}
    for what in args.what:
        nats = measure(base.backbone, adapted, held[: args.prompts], what)
        if nats is None:
            continue
        found[what] = asdict(nats)
        if not args.json:
            print(
                f"{what:10} dlm {nats.dlm:.3f}  in one step {nats.dlm_parallel:.3f}  base "
                f"{nats.base_left:.3f}  no traces {nats.no_traces:.3f}  first {nats.first:.3f}  "
                f"n {nats.n}",
                flush=True,
            )
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
