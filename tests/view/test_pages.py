"""The pages in a real browser: a list, a run that goes on, several runs, hostile text, many of each."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import ROOT
from fakes.browser import CHROMIUM, Browser
from fakes.finished_run import play
from fakes.large_run import START, write_large_run
from fakes.viewing import Viewing
from remask.runs.report.read_run import view_run
from remask.runs.report.summary import format_verdict
from remask.view.pages import PARTS, STARTED_PARTS

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

HOSTILE = (
    "<script>document.title='PWN'</script><img src=x onerror=document.title='PWN'> "
    "\"'><svg onload=document.title='PWN'> </template></textarea></title><b id=live>PWN</b> "
    "<base href=http://evil.invalid/><style>*{display:none}</style> {{ 7*7 }} data: x\n\nid: 9"
)
ROWS = "document.querySelectorAll('#rows tr:not([hidden])').length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(autouse=True)
def empty_page(browser: Browser) -> None:
    browser.resize(1400)
    browser.leave()


def require_no_problem(browser: Browser) -> None:
    assert browser.list_problems() == []
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    browser.leave()


def wait_for_stream(browser: Browser) -> None:
    browser.wait_until("document.getElementById('live').textContent === 'live'")


def test_the_parts_are_those_of_the_report() -> None:
    source = (ROOT / "src/remask/runs/report/run.html.j2").read_text()
    assert tuple(re.findall(r'include "(\w+)\.html\.j2"', source)) == PARTS
    begun = source.partition("{% if started %}")[2].partition("{% endif %}")[0]
    assert set(re.findall(r'include "(\w+)\.html\.j2"', begun)) == STARTED_PARTS


def test_the_list_names_every_run_with_its_state(browser: Browser, tmp_path: Path) -> None:
    play(tmp_path / "good")
    play(tmp_path / "half", finish=False)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.db").write_bytes(b"no database" * 100)
    with Viewing(tmp_path) as server:
        browser.open(server.address)
        wait_for_stream(browser)
        assert browser.run(ROWS) == 3
        text = browser.run("document.getElementById('rows').innerText")
        assert "improved" in text and "stopped" in text and "is damaged" in text
        test = view_run(tmp_path / "good").result.test
        assert f"{test.difference:+.3f}" in text and f"{test.low:+.3f} to {test.high:+.3f}" in text
        browser.run("document.getElementById('state').value = 'finished'")
        browser.run("document.getElementById('state').dispatchEvent(new Event('input'))")
        assert browser.run(ROWS) == 1
        play(tmp_path / "later")
        browser.wait_until(f"{ROWS} === 2")  # it comes by itself, and passes the filter
        assert browser.run("document.querySelector('#rows tr').dataset.name") == "later"
        require_no_problem(browser)


def test_every_figure_of_a_finished_run_is_that_of_its_result(browser: Browser, tmp_path: Path) -> None:
    play(tmp_path / "good")
    seen = view_run(tmp_path / "good")
    with Viewing(tmp_path / "good") as server:  # one run is a folder of one
        browser.open(server.address)
        browser.run("document.querySelector('#rows a').click()")
        browser.wait_until("document.querySelector('#part-verdict h1') !== null")
        text = browser.run("document.querySelector('main').innerText")
        test = seen.result.test
        for number in (test.baseline, test.best, test.difference, test.low, test.high):
            assert f"{number:.3f}" in text
        assert f"{seen.spend.calls:,}" in text and "Improved" in text
        require_no_problem(browser)


def test_a_run_that_goes_on_grows_and_what_the_reader_did_stays(browser: Browser, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path[:0] = {[str(ROOT / 'tests'), str(ROOT / 'src')]!r}\n"
        "from pathlib import Path; from fakes.large_run import append_slowly\n"
        f"append_slowly(Path({str(tmp_path / 'live')!r}), 10**6, 0.02)"  # until it is killed
    )
    writer = subprocess.Popen([sys.executable, "-c", code])
    try:
        while not (tmp_path / "live" / "run.db").exists():
            assert writer.poll() is None
            time.sleep(0.05)
        with Viewing(tmp_path) as server:
            browser.open(server.address)
            browser.wait_until("document.querySelector('.pill.running') !== null")
            browser.run("document.querySelector('#rows a').click()")
            browser.wait_until("document.querySelector('#status .pill.running') !== null")
            wait_for_stream(browser)
            browser.wait_until(
                "document.querySelectorAll('#part-candidates del, #part-candidates ins').length > 0"
            )
            browser.run("window.kept = document.querySelector('#part-settings details'); kept.open = true")
            first = browser.run("document.getElementById('status').innerText")
            browser.wait_until("Number(document.documentElement.dataset.updates) >= 4")
            browser.wait_until(f"document.getElementById('status').innerText !== {json.dumps(first)}")
            assert browser.run("kept.isConnected && kept.open")
            writer.kill()
            writer.wait()
            browser.wait_until("document.querySelector('#status .pill.stopped') !== null")
            events = len(view_run(tmp_path / "live").history)
            browser.wait_until(f"document.getElementById('status').innerText.includes('{events:,} events')")
            require_no_problem(browser)
    finally:
        writer.kill()
        writer.wait()


def test_a_stream_goes_on_where_it_was(tmp_path: Path) -> None:
    write_large_run(tmp_path / "run", 80)
    with Viewing(tmp_path) as server:

        def read(path: str, last: str = "", until: bytes = b"") -> str:
            """Read until `until` has come, or without it until nothing came for two seconds."""
            stream = server.connect()
            head = f"Host: 127.0.0.1:{server.port}\r\nCookie: {server.cookie}\r\n"
            head += f"Last-Event-ID: {last}\r\n" if last else ""
            stream.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
            stream.settimeout(60 if until else 2)
            found = b""
            try:
                while (not until or until not in found) and (data := stream.recv(1 << 16)):
                    found += data
            except TimeoutError:
                pass
            stream.close()
            return found.decode()

        first = read("/events", until=b"}\n\n")
        stamp = re.search(r"id: (\S+)\ndata: (.*)\n\n", first)
        assert stamp is not None and "run-" in stamp[2]
        assert "\ndata:" not in read("/events", stamp[1])
        for other in ("ffffffff-9", "x", stamp[1].partition("-")[0] + "-" + "9" * 40):
            assert "\ndata:" in read("/events", other, until=b"}\n\n")


def test_two_runs_side_by_side(browser: Browser, tmp_path: Path) -> None:
    play(tmp_path / "a", "Work at level 5.")
    play(tmp_path / "b", "Work at level 9.")
    with Viewing(tmp_path) as server:
        browser.open(server.address)
        browser.run("document.querySelectorAll('#rows input').forEach((box) => box.click())")
        assert browser.run("document.getElementById('compare').textContent") == "Compare 2 runs"
        browser.run("document.getElementById('compare').click()")
        browser.wait_until("location.pathname === '/compare' && document.querySelector('.card') !== null")
        text = browser.run("document.querySelector('main').innerText")
        for name in ("a", "b"):
            assert format_verdict(view_run(tmp_path / name).result) in text
        assert "Rows that flipped: 0" in text  # both runs end with the same prompt
        assert browser.run("document.querySelectorAll('svg.overlay.wide path.curve').length") == 2
        options = "document.querySelector('select[name=from]').options"
        browser.run(f"{options}[0].selected = true; document.querySelector('#prompts button').click()")
        browser.wait_until("document.querySelector('#prompts del') !== null")
        require_no_problem(browser)


def test_hostile_text_is_only_text(browser: Browser, tmp_path: Path) -> None:
    name = "run <img src=x onerror=document.title='PWN'>"
    play(tmp_path / name, f"Work at level 5. {HOSTILE}")
    write_large_run(tmp_path / "large", 120, f"{START} {HOSTILE}")
    with Viewing(tmp_path) as server:
        browser.open(server.address)
        wait_for_stream(browser)
        assert browser.run(ROWS) == 2
        ids = browser.run("Array.from(document.querySelectorAll('#rows input'), (box) => box.value)")
        base = server.address.partition("/open")[0]
        compare = f"/compare?run={ids[0]}&run={ids[1]}&from={HOSTILE[:40].replace(' ', '+')}"
        for path in ("/", f"/runs/{ids[0]}", f"/runs/{ids[1]}", f"/runs/{ids[1]}/candidates", compare):
            browser.open(base + path.replace("<", "%3C"))
            browser.wait_until("document.querySelector('main') !== null")
            assert browser.run("document.title") != "PWN"
            assert browser.run("document.getElementById('live').textContent") in ("", "live")
            assert (
                browser.run("document.querySelectorAll('img, base, iframe, body style, body script').length")
                == 0
            )
            assert browser.run("getComputedStyle(document.querySelector('main')).display") == "block"
        require_no_problem(browser)


def test_two_hundred_runs_are_filtered_at_once(browser: Browser, tmp_path: Path) -> None:
    write_large_run(tmp_path / "run-0", 3)
    data = (tmp_path / "run-0" / "run.db").read_bytes()
    for number in range(1, 200):
        (tmp_path / f"run-{number}").mkdir()
        (tmp_path / f"run-{number}" / "run.db").write_bytes(data)
    with Viewing(tmp_path) as server:
        browser.open(server.address)
        wait_for_stream(browser)
        assert browser.run(ROWS) == 200
        shown = browser.run(
            "(() => { const field = document.getElementById('filter');"
            f" field.value = 'run-19'; field.dispatchEvent(new Event('input')); return {ROWS}; }})()"
        )
        assert shown == 11
        browser.resize(400)
        require_no_problem(browser)


def test_ten_thousand_candidates_stay_responsive(browser: Browser, tmp_path: Path) -> None:
    write_large_run(tmp_path / "large", 10_000)
    with Viewing(tmp_path) as server:
        browser.open(server.address)
        browser.run("document.querySelector('#rows a').click()")
        browser.wait_until("document.querySelector('#part-candidates h2') !== null")
        assert browser.run("document.documentElement.outerHTML.length") < 1_000_000
        assert "10,000 candidates" in browser.run("document.getElementById('status').innerText")
        browser.run("document.querySelectorAll('nav.top a')[2].click()")
        browser.wait_until("document.querySelectorAll('table.cards tbody tr').length === 100")
        assert "page 1 of 100" in browser.run("document.querySelector('main').innerText")
        require_no_problem(browser)
