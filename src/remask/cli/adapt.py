"""`remask adapt`. Imports only click; the command imports the rest when it runs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from remask.cli.options import GroupedCommand, option

if TYPE_CHECKING:
    from remask.dlm.training.held_out import HeldOutLoss


@click.command(cls=GroupedCommand)
@option("Data", "--data", multiple=True, type=click.Path(path_type=Path), metavar="PATH",
        help="Prompts with examples (JSONL), or conversations with a system prompt in a format that "
        "remask traces inspect reads. A file, or a folder of .jsonl files. May be repeated.")  # fmt: skip
@option("Data", "--from-runs", "runs", multiple=True, type=click.Path(path_type=Path), metavar="RUN",
        help="Learn from the candidates that a run has measured: what gained becomes more probable, "
        "what lost less. A run directory, or a folder of them. May be repeated.")  # fmt: skip
@option("Data", "--leave-out", default="", metavar="REGEX",
        help="Leave out prompts whose name or text matches this regular expression.")  # fmt: skip
@option("Data", "--held-out", type=click.IntRange(0), default=20,
        help="Prompts to hold out for measurements; at most a tenth of all. Default: 20.")  # fmt: skip
@option("Model", "--base", default="builtin", metavar="MODEL",
        help="Left-to-right base model: builtin, or a Llama, Qwen2 or Qwen3 as local:FOLDER or as "
        "local:HUB_ID (downloaded once; needs --revision). Default: builtin.")  # fmt: skip
@option("Model", "--revision", metavar="COMMIT", help="Full commit id of a base model on the hub.")
@option("Model", "--from", "start", metavar="shipped|fresh|FILE",
        help="Adapter of the base model to continue; fresh trains a new one. Default: shipped for the "
        "built-in base, else fresh.")  # fmt: skip
@option("Training", "--steps", type=click.IntRange(1), default=120,
        help="Steps of 16 masked windows; each takes some seconds on one core. Default: 120.")  # fmt: skip
@option("Training", "--rate", type=click.FloatRange(0, min_open=True), default=3e-4,
        help="Learning rate. Default: 0.0003.")  # fmt: skip
@option("Training", "--distil", type=click.FloatRange(0, 1), default=0.3,
        help="Share of the distillation from the base model in the loss. Default: 0.3.")  # fmt: skip
@option("Training", "--rank", type=click.IntRange(1, 256), default=32,
        help="Rank of a fresh adapter. Default: 32.")  # fmt: skip
@option("Training", "--edit-share", type=click.FloatRange(0, 1, min_open=True), default=0.5,
        help="Share of measured edits in a step, with --from-runs. Default: 0.5.")  # fmt: skip
@option("Training", "--negative", type=click.FloatRange(0), default=0.5,
        help="Weight of the measured edits that lost. Default: 0.5.")  # fmt: skip
@option("Training", "--sharpness", type=click.FloatRange(0, min_open=True), default=1.0,
        help="How far the best and the worst measured edits outweigh the others. Default: 1.")  # fmt: skip
@option("Training", "--measure-every", type=click.IntRange(0), default=200,
        help="Steps between measurements on held-out prompts; 0: at the ends. Default: 200.")  # fmt: skip
@option("Training", "--seed", type=int, default=0, help="Seed of all random choices. Default: 0.")
@option("Output", "--out", "-o", required=True, type=click.Path(path_type=Path),
        metavar="FILE.safetensors",
        help="File for the adapter. Its model card, log and checkpoint are written next to it.")  # fmt: skip
@option("Output", "--force", is_flag=True, help="Replace the adapter if it exists.")
def adapt(out: Path, force: bool, **flags: Any) -> None:
    """Train the diffusion model on your own prompts.

    Run the same command again to continue an interrupted training. Use the adapter with
    --denoiser builtin:FILE, or for another base model with --denoiser local:FOLDER --adapter FILE.

    \b
    Example:
      remask adapt --data prompts.jsonl -o adapter.safetensors
      remask adapt --data prompts.jsonl --from-runs runs -o adapter.safetensors
    """
    from remask.api.job import follow_steps
    from remask.cli.live import open_side_display
    from remask.dlm.training.measured import EditPlan
    from remask.dlm.training.recipe import TrainOptions
    from remask.dlm.training.recipe import adapt as train_adapter
    from remask.dlm.training.train import TrainPlan, TrainStep
    from remask.errors import ConfigError
    from remask.files import placed
    from remask.runs.budget import Spend
    from remask.sanitize import make_visible

    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out}: the name of an adapter must end with .safetensors")
    if out.exists() and not force:
        raise ConfigError(f"{out} exists already; name another file, or give --force to replace it")
    if not flags["data"] and not flags["runs"]:
        raise ConfigError("there is nothing to train on; give --data PATH, --from-runs RUN, or both")
    keys = ("steps", "rate", "distil", "rank", "seed")
    base = placed(flags["base"], Path.cwd())
    options = TrainOptions(
        flags["data"], out, TrainPlan(**{key: flags[key] for key in keys}), base, flags["revision"],
        flags["start"] or ("shipped" if base == "builtin" else "fresh"),
        flags["leave_out"], flags["held_out"], flags["measure_every"], flags["runs"],
        EditPlan(flags["edit_share"], flags["negative"], flags["sharpness"]),
    )  # fmt: skip

    def print_step(done: TrainStep) -> None:
        if done.step == 1 or done.step % 10 == 0 or done.step == options.plan.steps:
            click.echo(
                f"step {done.step} of {options.plan.steps}: loss {done.loss:.2f} nats, "
                f"learning rate {done.rate:.1e}, {done.seconds:.1f} s",
                err=True,
            )

    with open_side_display(False) as display, follow_steps(display):
        display.step("reading the data", 0, 0, Spend())
        made = train_adapter(options, print_step, _print_losses, _print_diversity)
    measured = f" and {made.edits.edits} measured edits" if made.edits else ""
    click.echo(make_visible(f"wrote {made.out} and {options.card} from {made.trained} prompts{measured}"))
    sys.exit(0)


def _print_losses(step: int, losses: "tuple[HeldOutLoss, ...]") -> None:
    for loss in losses:
        click.echo(
            f"held-out loss at step {step}, {loss.pattern}: {loss.left_to_right:.3f} nats per "
            f"token ({loss.base:.3f} base model, {loss.without_traces:.3f} without "
            f"conversations, {loss.at_once:.3f} in one step; {loss.prompts} prompts)",
            err=True,
        )


def _print_diversity(step: int, share: float) -> None:
    click.echo(f"fills at step {step}: {share:.2f} of all word pairs are distinct", err=True)
