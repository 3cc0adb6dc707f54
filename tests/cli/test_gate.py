"""Gates for CI: exit codes, JUnit XML and the Markdown summary, also with hostile text."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.command import complaint, remask
from fakes.finished_run import play
from remask.cli.gate import Figures, GateResult, describe_result, judge, make_junit, make_summary
from remask.runs.report.read_run import write_report
from remask.runs.result import Result

FUNCTION = "def respond(messages):\n    return 'yes' if 'yes' in messages[-1]['content'] else 'no'\n"
FOUND = Figures("optimize", "improved", 0.8, "improved: 0.5 → 0.8", {"verdict": "improved"}, (), 1.0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = play(folder)
    assert result is not None
    write_report(folder)
    return result


@pytest.fixture
def project(tmp_path: Path) -> list[object]:
    """The words of a `remask eval` whose score is 0.75."""
    (tmp_path / "target.py").write_text(FUNCTION)
    (tmp_path / "prompt.md").write_text("Answer.")
    rows = [f'{{"input": "{n} {"yes" if n % 2 else "no"}", "label": "yes"}}' for n in range(20)]
    rows += [f'{{"input": "{n} yes", "label": "yes"}}' for n in range(20, 38)]
    rows += ['{"input": "38 no", "label": "no"}', '{"input": "39 no", "label": "no"}']
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    target = f"{tmp_path / 'target.py'}:respond"
    return ["eval", tmp_path / "prompt.md", "--data", tmp_path / "rows.jsonl", "--target", target]


def test_eval_ends_with_5_where_the_score_is_too_low_and_with_0_where_it_is_not(
    project: list[object], tmp_path: Path
) -> None:
    good = remask(*project, "--fail-unless", "score>=0.1")
    assert (good.exit_code, good.stderr) == (0, "")
    junit, page = tmp_path / "out.xml", tmp_path / "summary.md"
    bad = remask(
        *project, "--fail-unless", "score >= 0.1", "--fail-unless", "score>=1", "--junit", junit,
        "--summary", page,
    )  # fmt: skip
    assert bad.exit_code == 5
    assert re.fullmatch(r"error: the gate failed: score>=1: the score is 0\.\d+\n", bad.stderr)
    suite = ET.parse(junit).getroot().find("testsuite")
    assert suite is not None and (suite.get("tests"), suite.get("failures")) == ("2", "1")
    cases = {case.get("name"): case.find("failure") is not None for case in suite.iter("testcase")}
    assert cases == {"score >= 0.1": False, "score>=1": True}
    assert "- gate ` score>=1 ` failed: the score is 0." in page.read_text()
    remask(*project, "--summary", page)
    assert page.read_text().count("## remask eval") == 2, "a summary is appended"


def test_eval_against_another_prompt_has_a_verdict(project: list[object], tmp_path: Path) -> None:
    (tmp_path / "target.py").write_text(
        "def respond(messages):\n"
        "    text = messages[-1]['content']\n"
        "    return 'yes' if 'Care' in messages[0]['content'] and 'yes' in text else 'no'\n"
    )
    (tmp_path / "care.md").write_text("Care.")
    rows = [f'{{"input": "{n} yes", "label": "{"yes" if n else "no"}", "split": "test"}}' for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    words = [*project, "--split", "test", "--split-column", "split"]
    worse = remask(*words, "--against", tmp_path / "care.md", "--fail-unless", "not-worse")
    assert worse.exit_code == 5 and "not-worse: the verdict is worse" in worse.stderr
    assert "worse: 0.975 → 0.025 on the same 40 rows" in worse.stdout
    words[1] = tmp_path / "care.md"
    better = remask(*words, "--against", tmp_path / "prompt.md", "--fail-unless", "improved")
    assert better.exit_code == 0, better.output
    assert "none.md" in complaint(remask(*words, "--against", tmp_path / "none.md"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fail-unless", "better"], "give improved, not-worse or score>=NUMBER"),
        (["--fail-unless", "score>=e"], "such as score>=0.8"),
        (["--fail-unless", "score>=1e999"], "such as score>=0.8"),
        (["--fail-unless", "improved"], "needs a comparison of two prompts"),
        (["--junit", "none/out.xml"], "its folder does not exist"),
        (["--summary", "."], "it is a folder"),
    ],
)
def test_a_wrong_gate_or_file_is_one_sentence_before_any_call(
    project: list[object], words: list[str], said: str
) -> None:
    assert said in complaint(remask(*project, *words))


@pytest.mark.parametrize(
    ("verdict", "gate", "passes"),
    [
        *(("improved", "improved", True), ("no evidence", "improved", False), ("worse", "improved", False)),
        *(("improved", "not-worse", True), ("no evidence", "not-worse", True)),
        *(
            ("worse", "not-worse", False),
            ("unverified", "not-worse", False),
            ("unverified", "improved", False),
        ),
        *(("worse", "score>=0.8", True), ("improved", "score>=0.81", False)),
    ],
)
def test_gates_by_the_verdict(verdict: str, gate: str, passes: bool) -> None:
    assert (judge(gate, replace(FOUND, verdict=verdict)).failure == "") == passes


def test_without_a_sealed_test_no_score_passes() -> None:
    assert judge("score>=0", replace(FOUND, score=None)).failure == "there is no score"


def test_resume_of_a_finished_run_holds_its_gates_too(finished: Result) -> None:
    found = describe_result(finished)
    assert judge("improved", found).failure == "" and judge("score>=1", found).failure == ""
    suite = ET.fromstring(make_junit(found, [])).find("testsuite")
    assert suite is not None
    values = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert (values["verdict"], values["best"], values["difference"]) == ("improved", "1.0", "0.5")
    assert [case.get("name") for case in suite.iter("testcase")] == ["finished"]
    assert "warning: a <b>warning</b>" in str(suite.findtext("system-out"))


PIECES = (*"<>&\"'`|*_[]()#\n\r\t\x00\x1b\ufffe\ud800", "]]>", "```", "<script>", "![x](http://a)")
HOSTILE = st.lists(st.one_of(st.characters(), st.sampled_from(PIECES)), max_size=40).map("".join)


@given(HOSTILE, HOSTILE, st.lists(HOSTILE, max_size=3))
def test_hostile_text_breaks_neither_xml_nor_markdown(text: str, gate: str, warnings: list[str]) -> None:
    found = replace(FOUND, headline=text, properties={"run": text}, warnings=tuple(warnings), diff=text)
    results = [GateResult(gate, text)]
    root = ET.fromstring(make_junit(found, results))
    assert [case.tag for case in root.iter("testcase")] == ["testcase"]
    assert len(list(root.iter("property"))) == 1
    page = make_summary(found, results)
    page.encode()
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?\n\1$", "", page)  # the block of the prompt
    for line in outside.splitlines():
        plain = re.sub(r"(`+) .*? \1(?!`)", "", line)  # inline code
        assert not re.search(r"(?<!\\)[<>]", plain), line
        assert not re.search(r"(?<!\\)!?\[", plain.replace("[-", "")), line
