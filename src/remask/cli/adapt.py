"""`remask adapt`: what it is called and takes. Imports click only; see `adapt.make`."""

import sys
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option(
    "--data", multiple=True, required=True, type=click.Path(path_type=Path), metavar="PATH",
    help="Prompts with examples (JSONL), or conversations with a system prompt in any form that "
    "remask traces inspect reads; a file, or a folder of .jsonl files; repeatable.",
)  # fmt: skip
@click.option(
    "--out", "-o", required=True, type=click.Path(path_type=Path), metavar="FILE.safetensors",
    help="The adapter. Its model card, log and checkpoint stand beside it.",
)  # fmt: skip
@click.option(
    "--base", default="builtin", show_default=True, metavar="builtin|local:PLACE",
    help="The left-to-right model that is adapted: a folder, or a hub id, with a Llama, Qwen2 or "
    "Qwen3.",
)  # fmt: skip
@click.option("--revision", metavar="COMMIT", help="Of a hub id: the full commit id.")
@click.option(
    "--from", "start", metavar="shipped|fresh|FILE",
    help="The adapter of that base to continue; fresh starts from the base itself.  "
    "[default: shipped; with --base fresh]",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(1), default=120, show_default=True,
    help="Of 16 corrupted windows each; some seconds a step on one core.",
)  # fmt: skip
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=3e-4, show_default=True,
              help="Learning rate of the factors.")  # fmt: skip
@click.option("--distil", type=click.FloatRange(0, 1), default=0.3, show_default=True,
              help="Share of the loss that the frozen base teaches.")  # fmt: skip
@click.option("--rank", type=click.IntRange(1, 256), default=32, show_default=True,
              help="Of a fresh adapter.")  # fmt: skip
@click.option("--leave-out", default="", metavar="REGEX",
              help="Leave out prompts whose name or text it finds.")  # fmt: skip
@click.option("--held-out", type=click.IntRange(0), default=20, show_default=True,
              help="Prompts that only measure; at most a tenth.")  # fmt: skip
@click.option("--measure-every", type=click.IntRange(0), default=200, show_default=True,
              help="Steps between measurements; 0: before and after alone.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--force", is_flag=True, help="Replace the adapter where it exists.")
def adapt(out: Path, force: bool, **flags: Any) -> None:
    """Teach a diffusion model your prompts, or make one for prompts of another base.

    The same command again goes on after a cut. Use the result with --denoiser builtin:FILE, or
    where the base is another one with --denoiser local:PLACE --adapter FILE.
    """
    from remask.config import placed
    from remask.dlm.training.held_out import HeldOutLoss
    from remask.dlm.training.recipe import TrainOptions
    from remask.dlm.training.recipe import adapt as make
    from remask.dlm.training.train import Progress, TrainPlan
    from remask.errors import ConfigError

    if out.suffix != ".safetensors":
        raise ConfigError(f"--out {out}: an adapter's name ends with .safetensors")
    if out.exists() and not force:
        raise ConfigError(f"{out} exists; name another file, or replace it with --force")
    keys = ("steps", "rate", "distil", "rank", "seed")
    base = placed(flags["base"], Path.cwd())
    order = TrainOptions(
        flags["data"], out, TrainPlan(**{key: flags[key] for key in keys}), base, flags["revision"],
        flags["start"] or ("shipped" if base == "builtin" else "fresh"),
        flags["leave_out"], flags["held_out"], flags["measure_every"],
    )  # fmt: skip

    def tell(one: Progress) -> None:
        if one.step == 1 or one.step % 10 == 0 or one.step == order.plan.steps:
            click.echo(
                f"step {one.step} of {order.plan.steps}: {one.loss:.2f} nats, rate {one.rate:.1e}, "
                f"{one.seconds:.1f} s",
                err=True,
            )

    def measured(step: int, found: tuple[HeldOutLoss, ...]) -> None:
        for nats in found:
            click.echo(
                f"held out at step {step}, {nats.pattern}: {nats.left_to_right:.3f} nats per token "
                f"({nats.base:.3f} base, {nats.without_traces:.3f} without conversations, "
                f"{nats.at_once:.3f} in one step; {nats.prompts} prompts)",
                err=True,
            )

    made = make(order, tell, measured)
    click.echo(f"wrote {made.out} and {order.card} from {made.trained} prompts")
    sys.exit(0)
