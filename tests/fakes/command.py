"""The command line, as a user types it: no process, so that an exception is a test's failure."""

from click.testing import CliRunner, Result

from remask.cli import main


def remask(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], prog_name="remask")


def is_progress(line: str) -> bool:
    """Whether a line tells the progress, which a slow machine prints before an error is found."""
    return " so far, left: " in line or line.startswith('{"kind":"Progress"')


def complaint(result: Result) -> str:
    """The one line on stderr of a command that ended with a user's error."""
    assert result.exit_code == 2, result.output
    assert not [said for said in result.stdout.splitlines() if not is_progress(said)]
    assert result.stderr.endswith("\n")
    line = result.stderr.removesuffix("\n")
    assert "\n" not in line
    assert line.startswith("error: ")
    return line
