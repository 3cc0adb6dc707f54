"""`remask serve`: the embedded target behind HTTP on this machine. Imports click only."""

import sys

import click

from remask.errors import BackendError


@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="A loopback address; no other is taken."
)
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free."
)
def serve(host: str, port: int) -> None:
    """Serve the embedded target to OpenAI clients on this machine.

    Base URL: http://127.0.0.1:8000/v1, model: embedded, any API key. Ctrl-C stops it.
    """
    try:
        from remask.serve.server import run
    except ImportError as error:
        raise BackendError(
            f"remask serve needs the extras web and local ({error}); install with "
            "pip install 'remask[web,local]'"
        ) from None
    try:
        run(host, port, lambda url: click.echo(f"serving embedded at {url} (Ctrl-C stops)"))
    except KeyboardInterrupt:
        click.echo("stopped")
        sys.exit(130)
