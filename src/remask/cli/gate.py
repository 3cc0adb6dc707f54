"""Gates for CI: fail a command by what it found, and write JUnit XML and a Markdown summary.

Text of models and users is untrusted: it is made visible, escaped in XML, and quoted as code in
Markdown.
"""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remask.api.evaluate import Evaluation
from remask.cli.show import format_diff
from remask.errors import ConfigError, GateFailed
from remask.files import write
from remask.runs.budget import Spend
from remask.runs.goal_results import describe_objective
from remask.runs.report import summary
from remask.runs.report.markdown import format_block, format_code
from remask.runs.result import Result
from remask.sanitize import make_visible, one_line
from remask.stats import Comparison
from remask.types import Split

SCORE = re.compile(r"\s*score\s*>=\s*(?P<least>[0-9.eE+-]+)\s*")


@dataclass(frozen=True, slots=True)
class Outputs:
    """What --fail-unless, --junit and --summary asked for."""

    gates: tuple[str, ...] = ()
    junit: Path | None = None
    summary: Path | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """What a command has found, as the gates and both files need it."""

    command: str
    verdict: str  # "" where nothing was compared
    score: float | None  # of the best prompt on the sealed test, or of the only prompt
    headline: str
    properties: Mapping[str, str]
    warnings: tuple[str, ...]
    seconds: float
    diff: str = ""  # of the prompts, with marks


@dataclass(frozen=True, slots=True)
class GateResult:
    gate: str
    failure: str  # why it failed, as part of a sentence; "": it passed


def make_outputs(flags: dict[str, Any], compares: bool) -> Outputs:
    """Take the options of the gate out of the flags. Raises ConfigError where they are wrong."""
    outputs = Outputs(*(flags.pop(name) for name in ("fail_unless", "junit", "summary")))
    check_outputs(outputs, compares)
    return outputs


def check_outputs(outputs: Outputs, compares: bool) -> None:
    """Raise ConfigError where a gate is unknown or a file could not be written. Calls nothing.

    compares: whether the command compares two prompts, so that there is a verdict.
    """
    for gate in outputs.gates:
        if _read_least(gate) is not None:
            continue
        if gate not in ("improved", "not-worse"):
            raise ConfigError(f"--fail-unless {gate!r} is unknown; give improved, not-worse or score>=NUMBER")
        if not compares:
            raise ConfigError(
                f"--fail-unless {gate} needs a comparison of two prompts; give --against PROMPT.MD, "
                "or score>=NUMBER"
            )
    for path in (outputs.junit, outputs.summary):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise ConfigError(f"{path} cannot be written: it is a folder, or its folder does not exist")


def _read_least(gate: str) -> float | None:
    """Return X of score>=X; None for another gate. Raises ConfigError where X is no number."""
    found = SCORE.fullmatch(gate)
    if found is None:
        return None
    try:
        least = float(found["least"])
    except ValueError:
        least = math.nan
    if not math.isfinite(least):
        raise ConfigError(f"--fail-unless {gate!r}: write score>=NUMBER, such as score>=0.8")
    return least


def judge(gate: str, found: Figures) -> GateResult:
    """Say whether a gate passes."""
    least = _read_least(gate)
    if least is not None:
        if found.score is None:
            return GateResult(gate, "there is no score")
        failed = f"the score is {found.score:.4g}" if found.score < least else ""
    else:
        passed = ("improved",) if gate == "improved" else ("improved", "no evidence")
        failed = "" if found.verdict in passed else f"the verdict is {found.verdict}"
    return GateResult(gate, failed)


def finish(outputs: Outputs, found: Figures) -> None:
    """Write the files, and raise GateFailed where a gate failed."""
    results = [judge(gate, found) for gate in outputs.gates]
    if outputs.junit is not None:
        write(outputs.junit, make_junit(found, results), force=True)
    if outputs.summary is not None:
        try:
            with outputs.summary.open("a", encoding="utf-8") as file:
                file.write(make_summary(found, results))
        except OSError as error:
            raise ConfigError(f"{outputs.summary} cannot be written ({error.strerror})") from None
    failed = [f"{one.gate}: {one.failure}" for one in results if one.failure]
    if failed:
        raise GateFailed(f"the gate failed: {'; '.join(failed)}")


def describe_result(result: Result, command: str = "optimize") -> Figures:
    """Return what the gates need of a run."""
    test, spend = result.test, result.spend
    return Figures(
        command=command,
        verdict=result.verdict,
        score=test.best if test else None,
        headline=summary.format_verdict(result),
        properties={
            "verdict": result.verdict,
            **({} if test is None else _list_difference(test)),
            **({"rows": str(test.n), "earlier_tests": str(result.earlier_tests)} if test else {}),
            **{f"objective {one.name}": describe_objective(one) for one in result.objectives},
            **{f"guard {one.name}": one.status for one in result.guards},
            **_list_spend(spend),
            "run": result.run_dir,
        },
        warnings=result.warnings,
        seconds=spend.seconds,
        diff=format_diff(result.diff(), colour=False),
    )


def describe_evaluation(found: Evaluation, split: Split) -> Figures:
    """Return what the gates need of the score of one prompt."""
    score, test = found.score, found.comparison
    more = {} if test is None else {"verdict": test.verdict, **_list_difference(test)}
    compared = "" if test is None else f"; {summary.format_against(test)}"
    return Figures(
        command="eval",
        verdict="" if test is None else test.verdict,
        score=score.mean,
        headline=f"{split}: {score.mean:.3f} on {score.n} rows "
        f"(95 % interval {score.low:.3f} to {score.high:.3f}){compared}",
        properties={
            "split": split,
            **more,
            **{"score": repr(score.mean), "score_low": repr(score.low), "score_high": repr(score.high)},
            **{"rows": str(score.n), "failed": str(found.failed), "unparsed": str(found.unparsed)},
            **_list_spend(found.spend),
        },
        warnings=(*found.warnings, *found.errors),
        seconds=found.spend.seconds,
    )


def _list_difference(test: Comparison) -> dict[str, str]:
    names = ("best", "baseline", "difference", "low", "high", "level")  # low, high: of the difference
    return {name: repr(getattr(test, name)) for name in names}


def _list_spend(spend: Spend) -> dict[str, str]:
    return {"calls": str(spend.calls), "tokens": str(spend.tokens), "usd": repr(spend.usd)}


def make_junit(found: Figures, results: Sequence[GateResult]) -> bytes:
    """Return JUnit XML: a test case for each gate, or one for the command where there is none."""
    failures = sum(bool(one.failure) for one in results)
    counts = {"tests": str(max(1, len(results))), "failures": str(failures), "errors": "0"}
    time = f"{found.seconds:.3f}"
    root = ET.Element("testsuites", {"name": "remask", "time": time, **counts})
    suite = ET.SubElement(root, "testsuite", {"name": f"remask {found.command}", "time": time, **counts})
    properties = ET.SubElement(suite, "properties")
    for name, value in found.properties.items():
        ET.SubElement(properties, "property", name=name, value=make_visible(value))
    for one in results or [GateResult("finished", "")]:
        name = one_line(one.gate)
        case = ET.SubElement(suite, "testcase", classname=f"remask.{found.command}", name=name, time=time)
        if one.failure:
            message = one_line(f"{one.gate}: {one.failure}")
            ET.SubElement(case, "failure", message=message).text = one_line(found.headline)
    lines = [one_line(found.headline), *(f"warning: {one_line(text)}" for text in found.warnings)]
    ET.SubElement(suite, "system-out").text = "\n".join(lines)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def make_summary(found: Figures, results: Sequence[GateResult]) -> str:
    """Return Markdown for the summary of a CI job."""
    lines = [f"## remask {found.command}", "", f"**{_escape(found.headline)}**", ""]
    for one in results:
        said = f"failed: {_escape(one.failure)}" if one.failure else "passed"
        lines.append(f"- gate {format_code(one_line(one.gate))} {said}")
    lines += [f"- {name}: {format_code(one_line(value))}" for name, value in found.properties.items()]
    lines += [f"- warning: {format_code(one_line(text))}" for text in found.warnings]
    if found.diff:
        lines += [
            "",
            "The prompt, with `{+` added `+}` and `[-` removed `-]` words:",
            "",
            format_block(make_visible(found.diff)),
        ]
    return "\n".join(lines) + "\n\n"


def _escape(text: str) -> str:
    """Return text on one line in which Markdown and HTML mean nothing."""
    return re.sub(r"([\\`*_{}\[\]<>()#|~&!])", r"\\\1", one_line(text))
