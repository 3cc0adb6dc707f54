"""The report: its content, what it must not contain, and untrusted text."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.axe import needs_axe, require_accessible
from fakes.finished_run import START, play, record
from fakes.worlds import TOP
from remask.errors import ConfigError
from remask.events import Accepted, Proposed, Refused, Started, advance, fold
from remask.runs.outcomes import RowAnswer, RowResult
from remask.runs.report import chart, summary
from remask.runs.report.html import MAX_ROWS, SIZES, hash_script, render
from remask.runs.report.read_run import REPORT, view_run, write_report
from remask.runs.result import RESULT, AcceptedEdit, Result, read_result
from remask.runs.store import Store
from remask.sanitize import make_visible, one_line
from remask.stats import compare


@pytest.fixture(scope="module")
def page(finished_run: Path) -> str:
    return write_report(finished_run).read_text(encoding="utf-8")


class Tags(HTMLParser):
    """All tags with their attributes, and whether they are closed in order."""

    VOID = frozenset({"meta", "line", "path", "circle", "br", "input"})

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
    assert '<svg class="interval"' in page and '<svg class="wide"' in page and '<svg class="narrow"' in page
    assert page.count('class="card accepted"') == page.count('<div class="edit">') == len(result.edits)
    assert "<h1>Improved</h1>" in page
    for number in (result.test.baseline, result.test.best):
        assert f"<b>{number:.3f}</b>" in page


def test_report_shows_the_rows_won_with_their_place(finished_run: Path, page: str) -> None:
    rows = [row for row in view_run(finished_run).rows if row.split == "test"]
    won = [row for row in rows if row.change == "won"]
    assert f"Of {len(rows)} test rows, the best prompt wins {len(won)} and loses 0" in page
    assert page.count('<li class="row won') == len(won) <= MAX_ROWS["won"]
    assert won[0].place in page and won[0].message in page


def test_report_of_an_unfinished_run_says_what_the_run_does(tmp_path: Path) -> None:
    play(tmp_path / "run", finish=False)
    page = render(view_run(tmp_path / "run"))
    tags(page)
    assert "<h1>Not finished</h1>" in page and "sealed test of baseline and best prompt" in page
    assert "The run is not finished" in page and "Improved" not in page
    Store.create(tmp_path / "new", record()).close()
    page = render(view_run(tmp_path / "new"))
    tags(page)
    assert "no prompt has been read yet" in page


def test_report_of_an_unchanged_prompt_says_what_to_try(finished_run: Path) -> None:
    seen = view_run(finished_run)
    assert seen.result is not None
    same = replace(seen.result, best=seen.result.baseline, prompt=seen.result.baseline.prompt, edits=())
    page = render(replace(seen, result=same))
    assert "<h1>Unchanged</h1>" in page and "Try next: a larger budget" in page
    assert "<del>" not in page.partition("<h2>Rows</h2>")[0] and "so no row is won or lost" in page


def test_report_replays_how_an_edit_was_written(finished_run: Path) -> None:
    seen = view_run(finished_run)
    first = seen.state.accepted[0]
    pieces = ((("Work", 2), (" at", 1), (" <b>level</b>", 3)),)
    key = first.round, first.id
    proposals = {**seen.state.proposals, key: replace(seen.state.proposals[key], pieces=pieces)}
    page = render(replace(seen, state=replace(seen.state, proposals=proposals)))
    assert page.count('<figure class="denoise">') == 1
    assert re.findall(r'data-step="(\d)"', page) == ["2", "1", "3"]
    assert 'min="0" max="3" value="3"' in page and " &lt;b&gt;level" in page


def test_report_has_the_settings_of_the_user_and_folds_the_defaults(page: str) -> None:
    given, defaults = page.split("<h2>Settings</h2>")[1].split("<details")
    assert "target.model" in given and "denoiser.model" not in given
    assert "denoiser.model" in defaults and "search.traces" in defaults


@needs_axe
@pytest.mark.parametrize("finish", [True, False])
def test_axe_finds_nothing_on_screen_and_telephone(tmp_path: Path, finish: bool) -> None:
    play(tmp_path / "run", finish=finish)
    page = tmp_path / "page.html"
    page.write_text(render(view_run(tmp_path / "run")))
    require_accessible(page.as_uri())


def test_report_loads_nothing(page: str) -> None:
    found = tags(page)
    policies = [a["content"] for _, a in found if a.get("http-equiv") == "Content-Security-Policy"]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1 and sum(tag == "script" for tag, _ in found) == 1
    assert policies == [
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {hash_script(scripts[0])}; "
        "base-uri 'none'; form-action 'none'"
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


@pytest.mark.parametrize("char", ["&", "x", "\u202e", "語"])
def test_report_stays_under_a_megabyte(finished_run: Path, char: str) -> None:
    seen = view_run(finished_run)
    assert seen.result is not None
    long = char * 6_000
    start = Started(long, "base", 4000)
    piece = (((long, 1),),)
    many = [
        Proposed(i, f"c{i}", "base", long, 9, "rewrite", (), ((0, 6_000, long),), (), 0, piece)
        for i in range(10_000)
    ]
    accepted = tuple(Accepted(i, f"c{i}", "base", 0.1, ()) for i in range(40))
    state = fold([start, *many[:40], *accepted])
    answer = RowAnswer(0.0, long, long, "", False, False)
    rows = tuple(
        RowResult(str(i), "test", f"rows.csv:{i}", long, long, answer, replace(answer, score=1.0))
        for i in range(2_000)
    )
    edits = tuple(AcceptedEdit(i, "rewrite", ((long, long),), 0.1, (long,) * 3) for i in range(40))
    best = replace(seen.result.best, prompt=long + "!")
    result = replace(seen.result, edits=edits, best=best, prompt=best.prompt)
    before = perf_counter()
    page = render(
        replace(
            seen,
            state=replace(state, proposals={(p.round, p.id): p for p in many}),
            rows=rows,
            result=result,
            config=record(),
        )
    )
    assert perf_counter() - before < 20
    assert len(page.encode()) < 1_000_000
    assert "More candidates, with few scores, are not shown" in page


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
    best = [p.validation for p in found if p.kind in ("baseline", "accepted")]
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
            st.sampled_from(["baseline", "accepted", "kept", "test before", "test after"]),
        ),
        min_size=1,
    ),
    st.integers(0, 10**6),
    st.sampled_from(list(SIZES.values())),
)
def test_curve_lies_inside_the_plot(points: list[summary.Point], calls: int, size: chart.Size) -> None:
    drawn = chart.build_curve(tuple(points), calls, size)
    assert drawn is not None
    for dot in drawn.dots:
        assert drawn.plot.left <= dot.x <= drawn.plot.right
        assert drawn.plot.top <= dot.y <= drawn.plot.bottom
    for tick in drawn.plot.x_ticks:
        assert drawn.plot.left <= tick.at <= drawn.plot.right
    for label in drawn.labels:
        half = len(label.text) * chart.CHAR_WIDTH / 2
        assert drawn.plot.left - 1 <= label.x - half and label.x + half <= drawn.plot.right + 1
        assert label.y - 11 >= 0 and label.y <= drawn.plot.bottom


def test_curve_goes_to_the_end_of_the_budget() -> None:
    points = (summary.Point(100, 0.5, "baseline"), summary.Point(900, 0.7, "accepted"))
    drawn = chart.build_curve(points, 2000)
    assert drawn is not None and drawn.dots[1].x == pytest.approx(
        drawn.plot.left + (drawn.plot.right - drawn.plot.left) * 0.45, abs=0.1
    )
    assert [label.text for label in drawn.labels] == ["baseline 0.500", "0.700"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30))
def test_interval_bar_is_in_order_and_shows_zero(pairs: list[tuple[float, float]]) -> None:
    drawn = chart.build_interval_bar(compare([a for a, _ in pairs], [b for _, b in pairs]))
    assert 0 <= drawn.low <= drawn.middle <= drawn.high <= chart.BAR_WIDTH
    assert 0 <= drawn.zero <= chart.BAR_WIDTH


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
