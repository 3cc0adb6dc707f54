"""`remask view` with a run of 10,000 events, measured in a headless Chromium.

The weight of the page, its first paint, the time from an event in the database to the drawn page, and
the processor time of the server for an event; each the median of some rounds.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import (
    DOCS,
    RESULTS,
    ROOT,
    describe_run,
    make_parser,
    read_json,
    write_json,
    write_whole,
)
from remask.events import RoundRejected, encode
from remask.runs.budget import Spend
from remask.runs.store import Store

sys.path.insert(0, str(ROOT / "tests"))
from fakes.browser import Browser
from fakes.large_run import write_large_run
from fakes.viewing import Viewing

EVENTS = 5  # added in each round, one by one
PAUSE_S = 0.2
PAGE = DOCS / "results" / "view.md"


def measure(folder: Path, round: int) -> dict[str, float]:
    """One round: open the page of the run, then add events to it."""
    with Viewing(folder, (10.0, 20.0)) as server, Browser(folder.parent / f"profile-{round}") as browser:
        browser.resize(1400)
        browser.open(server.address)
        began = time.monotonic()
        browser.run("document.querySelector('#rows a').click()")
        browser.wait_until("document.querySelector('#part-candidates h2') !== null")
        found = {"opened_s": time.monotonic() - began}
        browser.wait_until("document.getElementById('live').textContent === 'live'")
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        found["first_paint_ms"] = browser.wait_until(paint)
        found["page_bytes"] = browser.run("document.documentElement.outerHTML.length")
        used, delays = time.process_time(), []
        with Store.open(folder / "large") as store:
            for number in range(EVENTS):
                updates = int(browser.run("document.documentElement.dataset.updates || '0'"))
                event = RoundRejected(10_000 * (round + 1) + number, "no gain")
                store.append(encode(event), Spend(calls=1))
                added = time.monotonic()
                browser.wait_until(f"Number(document.documentElement.dataset.updates || 0) > {updates}")
                delays.append(time.monotonic() - added)
                time.sleep(PAUSE_S)
        found["update_ms"] = 1000 * statistics.median(delays)
        found["cpu_ms_per_event"] = 1000 * (time.process_time() - used) / EVENTS
    return found


def write_page(results: dict[str, Any]) -> None:
    """Write the page from the results."""
    median = results["median"]
    write_whole(
        PAGE,
        f"""# The speed of `remask view`

A run of {results["events"]:,} events and {results["candidates"]:,} candidates, its page open in a headless
Chromium, {EVENTS} events added one by one; the median of {len(results["each"])} rounds.

| figure | median |
|---|---:|
| page of the run | {median["page_bytes"] / 1000:,.0f} kB |
| first paint, with the run already read | {median["first_paint_ms"]:,.0f} ms |
| from the click in the list to the page, with the run read for the first time | {median["opened_s"]:.1f} s |
| from an event to the drawn page | {median["update_ms"]:,.0f} ms |
| processor time of the server and the writer for an event | {median["cpu_ms_per_event"]:,.0f} ms |

Made by `{results["command"]}` at commit {results["commit"]} on {results["machine"]}.
""",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="How many rounds. Default: 5.")
    parser.add_argument("--out", type=Path, default=RESULTS / "view.json", help="The results file.")
    parser.add_argument("--page", action="store_true", help="Rewrite the page alone; nothing is measured.")
    args = parser.parse_args(arguments)
    if not args.page:
        about = describe_run(__file__, arguments, args.out)
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made) / "runs"
            events = write_large_run(folder / "large", 9_300)
            each = [measure(folder, round) for round in range(args.rounds)]
        median = {key: statistics.median(one[key] for one in each) for key in each[0]}
        write_json(args.out, {"events": events, "candidates": 9_300, "median": median, **about, "each": each})
        print(json.dumps(median, indent=1))
    write_page(read_json(args.out))


if __name__ == "__main__":
    main()
