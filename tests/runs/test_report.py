"""The report: its content, what it must not contain, and untrusted text."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.finished_run import START, play, record
from fakes.worlds import TOP
from remask.errors import ConfigError
from remask.events import Proposed, Refused, Started, advance, fold
from remask.runs.report import chart, summary
from remask.runs.report.html import MAX_CANDIDATES, hash_script, render
from remask.runs.report.read_run import REPORT, view_run, write_report
from remask.runs.result import RESULT, Result, read_result
from remask.sanitize import make_visible, one_line
from remask.stats import compare


@pytest.fixture(scope="module")
def page(finished_run: Path) -> str:
    return write_report(finished_run).read_text(encoding="utf-8")


class Tags(HTMLParser):
    """All tags with their attributes, and whether they are closed in order."""

    VOID = frozenset({"meta", "line", "path", "circle", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    parser.close()
    assert not parser.open
    return parser.found


def test_report_has_verdict_scores_and_edits(finished_run: Path, page: str) -> None:
    result = read_result(finished_run)
    assert result is not None
    assert result.verdict == "improved"
    assert f"{result.test.baseline:.3f} → {result.test.best:.3f} on 40 sealed test rows" in page
    assert f"<ins>{TOP}" in page
    assert "<del>5</del>" in page
    assert summary.SELECTION in page
    assert "forbidden" in page  # the guard's reason
    assert page.count("<svg") == 2
    assert len(re.findall(r'<tr class="accepted">', page)) == len(result.edits)


def test_report_loads_nothing(page: str) -> None:
    found = tags(page)
    policies = [a["content"] for _, a in found if a.get("http-equiv") == "Content-Security-Policy"]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1 and sum(tag == "script" for tag, _ in found) == 1
    assert policies == [
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {hash_script(scripts[0])}"
    ]
    for tag, attributes in found:
        assert tag not in {"link", "img", "iframe", "object", "base", "a", "form"}
        for name in attributes:
            assert name not in {"src", "href", "xlink:href", "style"}
            assert not name.startswith("on")
    assert not re.search(r"url\s*\(|@import", page)


def test_report_has_settings_but_no_credentials(page: str) -> None:
    assert "http://localhost:1/v1" in page
    assert "secret" not in page
    assert "OPENAI_API_KEY" in page  # the variable's name


def test_report_escapes_untrusted_text(finished_run: Path) -> None:
    seen = view_run(finished_run)
    assert seen.result is not None
    evil = "<script>alert('x')</script>\x1b[31m\u202eevil & \"quoted\""
    best = replace(seen.result.best, prompt=f"{START} {evil}")
    edit = replace(seen.result.edits[0], changes=((evil, evil),), attributions=(evil,))
    result = replace(
        seen.result, best=best, prompt=best.prompt, edits=(edit,), warnings=(evil,), run_dir=evil
    )
    state = advance(seen.state, Refused(0, "p", evil, "span", evil))
    page = render(replace(seen, result=result, state=state, config={"data": {"path": evil}}))
    assert page.count("<script") == 1  # ours
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert [tag for tag, _ in tags(page)].count("script") == 1


@settings(deadline=None, max_examples=30)
@given(text=st.text())
def test_report_accepts_any_text(finished_run: Path, text: str) -> None:
    seen = view_run(finished_run)
    result = seen.result
    assert result is not None
    other = replace(result, best=replace(result.best, prompt=text), warnings=(text,), stopped=text)
    page = render(replace(seen, result=other, config={"target": {"model": text}}))
    tags(page.encode().decode())


def test_report_stays_under_a_megabyte(finished_run: Path) -> None:
    seen = view_run(finished_run)
    assert seen.result is not None
    long = "<" * 16_000
    start = Started("&" * 16_000, "base", 4000)
    many = [
        Proposed(i, f"c{i}", "base", long, 9, "rewrite", (), ((0, 16_000, long),), (), 0)
        for i in range(4 * MAX_CANDIDATES)
    ]
    page = render(replace(seen, state=fold([start, *many]), config=record()))
    assert len(page.encode()) < 1_000_000
    assert f"{3 * MAX_CANDIDATES} candidates" in page


def test_write_report_refuses_an_unfinished_run(tmp_path: Path) -> None:
    play(tmp_path / "run", finish=False)
    with pytest.raises(ConfigError, match=r"not finished.*remask resume"):
        write_report(tmp_path / "run")
    assert not (tmp_path / "run" / REPORT).exists()


def test_result_is_unchanged_by_its_file(tmp_path: Path) -> None:
    written = play(tmp_path / "run")
    assert isinstance(written, Result)
    assert read_result(tmp_path / "run") == written
    (tmp_path / "run" / RESULT).write_text("{}")
    with pytest.raises(ConfigError, match=r"result\.json.*resume"):
        read_result(tmp_path / "run")


# --- the curve and the axis


def test_points_count_calls_and_never_go_down(finished_run: Path) -> None:
    found = summary.list_points(view_run(finished_run).history)
    assert found[0].kind == "baseline"
    assert found[0].calls == 40
    best = [p.validation for p in found if p.kind != "kept"]
    assert len(best) == 1 + len(view_run(finished_run).state.accepted)
    assert best == sorted(best)
    assert [p.calls for p in found] == sorted(p.calls for p in found)


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            summary.Point,
            st.integers(0, 10**6),
            st.floats(-5, 5),
            st.sampled_from(["baseline", "accepted", "kept"]),
        ),
        min_size=1,
    )
)
def test_curve_lies_inside_the_plot(points: list[summary.Point]) -> None:
    drawn = chart.build_curve(points, 0)
    assert drawn is not None
    for dot in drawn.dots:
        assert chart.LEFT <= dot.x <= chart.RIGHT
        assert chart.TOP <= dot.y <= chart.BOTTOM
    for tick in drawn.x_ticks:
        assert chart.LEFT <= tick.at <= chart.RIGHT


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30))
def test_interval_bar_is_in_order_and_shows_zero(pairs: list[tuple[float, float]]) -> None:
    drawn = chart.build_interval_bar(compare([a for a, _ in pairs], [b for _, b in pairs]))
    assert chart.LEFT <= drawn.low <= drawn.middle <= drawn.high <= chart.RIGHT
    assert chart.LEFT <= drawn.zero <= chart.RIGHT


@settings(deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(0, 1e3))
def test_choose_ticks_encloses_the_range(low: float, width: float) -> None:
    marks = chart.choose_ticks(low, low + width)
    assert marks[0] <= low + 1e-9 * max(1, abs(low))
    assert marks[-1] >= low + width - 1e-6
    assert 2 <= len(marks) <= 8


@settings(deadline=None)
@given(st.text())
def test_visible_text_hides_and_reorders_nothing(text: str) -> None:
    shown = make_visible(text)
    assert not any(c in shown for c in "\x00\x07\x1b\x9b\u200b\u202e\ufeff")
    assert make_visible(shown) == shown
    assert "\n" not in one_line(text)
    assert len(one_line(text, 20)) <= 20


def test_a_clear_interval_without_evidence_says_why() -> None:
    few = compare([0.0] * 9, [1.0] * 8 + [0.0])
    assert few.verdict == "no evidence" and few.low > 0
    assert "only 8 rows differ, and a verdict needs 10" in summary.format_comparison(few)
    many = compare([0.0] * 90, [1.0] * 80 + [0.0] * 10)
    assert "a verdict needs" not in summary.format_comparison(many)
