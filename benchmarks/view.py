"""`remask view` with a run of 10,000 events, measured in a headless Chromium.

The weight of the page, its first paint, the time from an event in the database to the drawn page, and
the processor time of the server for an event; each the median of some rounds. The events go on where the
run ends: candidates, their scores, and the end of a round.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
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
from remask.events import Event, encode
from remask.runs.budget import Spend
from remask.runs.store import Store

sys.path.insert(0, str(ROOT / "tests"))
from fakes.browser import Browser
from fakes.large_run import list_events, write_large_run
from fakes.viewing import Viewing

CANDIDATES = 9_300  # of the run before the first round
EVENTS = 8  # added in each round, one by one
PAUSE_S = 0.2
PAGE = DOCS / "results" / "view.md"


def measure(folder: Path, round: int, events: Sequence[Event]) -> dict[str, float]:
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
        used, delays = _read_server_seconds(), []
        with Store.open(folder / "large") as store:
            for event in events:
                updates = int(browser.run("document.documentElement.dataset.updates || '0'"))
                store.append(encode(event), Spend(calls=3, input_tokens=300, output_tokens=40, seconds=0.1))
                added = time.monotonic()
                browser.wait_until(f"Number(document.documentElement.dataset.updates || 0) > {updates}")
                delays.append(time.monotonic() - added)
                time.sleep(PAUSE_S)
        found["update_ms"] = 1000 * statistics.median(delays)
        found["cpu_ms_per_event"] = 1000 * (_read_server_seconds() - used) / len(events)
    return found


def _read_server_seconds() -> float:
    """Return the processor time of the threads of the server; this thread writes and asks the browser."""
    return time.process_time() - time.thread_time()


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
| processor time of the server for an event | {median["cpu_ms_per_event"]:,.0f} ms |

The machine had other work. Made by `{results["command"]}` at commit {results["commit"]} on
{results["machine"]}.
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
            count = write_large_run(folder / "large", CANDIDATES)
            later = islice(list_events(CANDIDATES + EVENTS * args.rounds), count, None)
            each = [measure(folder, n, list(islice(later, EVENTS))) for n in range(args.rounds)]
        median = {key: statistics.median(one[key] for one in each) for key in each[0]}
        write_json(
            args.out, {"events": count, "candidates": CANDIDATES, "median": median, **about, "each": each}
        )
        print(json.dumps(median, indent=1))
    write_page(read_json(args.out))


if __name__ == "__main__":
    main()
