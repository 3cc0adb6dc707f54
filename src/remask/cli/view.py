"""`remask view`: a local web page of the runs in a folder."""

import threading
import webbrowser
from contextlib import suppress
from pathlib import Path

import click

from remask.cli.options import GroupedCommand, option
from remask.errors import name_missing_extra
from remask.sanitize import make_visible


@click.command(cls=GroupedCommand)
@click.argument("runs", type=click.Path(path_type=Path), default=Path("runs"))
@option(
    "View", "--port", type=click.IntRange(0, 65535), default=0,
    help="Port on 127.0.0.1. Default: a free one.",
)  # fmt: skip
@option("View", "--open", "show", is_flag=True, help="Open the page in the browser.")
def view(runs: Path, port: int, show: bool) -> None:
    """Show the runs of a folder in the browser, live.

    Takes a folder with runs, or one run. Prints an address that works only on this machine and only
    with the key in it. The page never changes a run. Ctrl-C ends it.

    \b
    Example:
      remask view runs
    """
    with name_missing_extra():
        from remask.view.library import Library
        from remask.view.server import open_server

    library = Library(runs)
    count = len(library.list_runs())  # raises ConfigError where there is no folder
    with open_server(library, port) as (server, address):
        click.echo(f"{count} run{'' if count == 1 else 's'} in {make_visible(str(runs))}; open:")
        click.echo(address)
        click.echo("Ctrl-C ends it.")
        if show:  # some browsers are programs in this terminal, which return at their end
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        with suppress(KeyboardInterrupt):  # the server has closed everything by then
            server.serve_until_stopped()
        click.echo("stopped")
