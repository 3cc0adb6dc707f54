"""`remask models`: which targets and denoisers there are, and the line that names each.

Licences, memory and contexts are those that the models' authors publish, or that their config.json
implies. What could not be sourced is left out. Imports no large package.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click
import orjson

from remask.dlm.families import FAMILIES

OWN = "that of the model"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A kind of model that a target or a denoiser can be."""

    models: str
    use: str  # the exact options
    licence: str = ""  # "": not ours to say, or unknown
    memory: str = ""  # of the weights; "": none on this machine, or unknown
    context: str = ""  # tokens that are read at once
    family: str = ""  # of the denoisers on this machine: a name of FAMILIES


TARGETS = (
    KnownModel("SmolLM2-135M-Instruct, built in", "--target builtin",
               "Apache-2.0", "0.3 GB in bf16", "8,192 tokens"),
    KnownModel("Llama, Qwen2, Qwen2.5 or Qwen3 in a folder", "--target local:FOLDER",
               OWN, "2 GB per billion parameters in bf16", "as config.json says"),
    KnownModel("the same as a GGUF file", "--target local:FILE.gguf",
               OWN, "2 GB per billion parameters in bf16", "as the file says"),
    KnownModel("the same from the Hugging Face hub", "--target local:HUB_ID --revision COMMIT",
               OWN, "2 GB per billion parameters in bf16", "as config.json says"),
    KnownModel("any OpenAI-compatible endpoint", "--target openai:MODEL --base-url URL"),
    KnownModel("a Python function", "--target FILE.py:FUNCTION"),
    KnownModel("any provider of Inspect: Anthropic, Bedrock, Google, Mistral, Azure, Ollama and others",
               "--target inspect:PROVIDER/MODEL"),
)  # fmt: skip
DENOISERS = (
    KnownModel("SmolLM2-135M-Instruct with the shipped adapter", "--denoiser builtin",
               "Apache-2.0", "0.5 GB in bf16", family="smollm2-135m"),
    KnownModel("the same with an adapter of remask adapt", "--denoiser builtin:FILE",
               "Apache-2.0", "0.5 GB in bf16", family="smollm2-135m"),
    KnownModel("LLaDA-8B Base and Instruct, LLaDA-1.5",
               "--denoiser local:GSAI-ML/LLaDA-8B-Instruct --revision COMMIT",
               "MIT", "16.0 GB in bf16", family="llada"),
    KnownModel("Dream-7B, Dream-Coder-7B",
               "--denoiser local:Dream-org/Dream-v0-Instruct-7B --revision COMMIT",
               "Apache-2.0", "15.2 GB in bf16", family="dream"),
    KnownModel("DreamOn-7B, at a fixed length",
               "--denoiser local:Dream-org/DreamOn-v0-7B --revision COMMIT",
               "Apache-2.0", "15.2 GB in bf16", family="dreamon"),
    KnownModel("iLLaDA-8B Base and Instruct",
               "--denoiser local:GSAI-ML/iLLaDA-8B-Instruct --revision COMMIT",
               "Apache-2.0", "15.2 GB in bf16", family="illada"),
    KnownModel("LLaDA-MoE-7B-A1B Base and Instruct",
               "--denoiser local:inclusionAI/LLaDA-MoE-7B-A1B-Instruct --revision COMMIT",
               "Apache-2.0", "14.7 GB in bf16", family="llada-moe"),
    KnownModel("LLaDA2.0-mini",
               "--denoiser local:inclusionAI/LLaDA2.0-mini --revision COMMIT",
               "Apache-2.0", "32.5 GB in bf16", family="llada2"),
    KnownModel("LLaDA2.1-mini, which also corrects what it wrote",
               "--denoiser local:inclusionAI/LLaDA2.1-mini --revision COMMIT",
               "Apache-2.0", "32.5 GB in bf16", family="llada2.1"),
    KnownModel("Fast-dLLM v2 1.5B, 7B",
               "--denoiser local:Efficient-Large-Model/Fast_dLLM_v2_7B --revision COMMIT",
               "Apache-2.0", "15.2 GB in bf16 (7B), 3.1 GB (1.5B)", family="fast-dllm-v2"),
    KnownModel("Stable-DiffCoder-8B Base and Instruct",
               "--denoiser local:ByteDance-Seed/Stable-DiffCoder-8B-Instruct --revision COMMIT",
               "MIT", "16.5 GB in bf16", family="stable-diffcoder"),
    KnownModel("DiffusionGemma-26B-A4B",
               "--denoiser local:google/diffusiongemma-26B-A4B-it --revision COMMIT",
               "Apache-2.0", "50.5 GB in bf16", family="diffusion-gemma"),
    KnownModel("Nemotron-Labs-Diffusion 3B, 8B, 14B",
               "--denoiser local:nvidia/Nemotron-Labs-Diffusion-8B --revision COMMIT",
               "NVIDIA Open Model License", "17.0 GB in bf16 (8B)", family="nemotron-labs-diffusion"),
    KnownModel("SDAR 1.7B, 4B, 8B", "--denoiser local:FOLDER",
               "MIT", "4.1 GB in bf16 (1.7B)", family="sdar"),
    KnownModel("Tiny-A2D Qwen3-0.6B mdlm", "--denoiser local:FOLDER",
               "Apache-2.0", "1.2 GB in bf16", family="tiny-a2d-mdlm"),
    KnownModel("Tiny-A2D Qwen3-0.6B bd3lm", "--denoiser local:FOLDER",
               "Apache-2.0", "1.2 GB in bf16", family="tiny-a2d-bd3lm"),
    *(KnownModel(f"{name} with an adapter of remask adapt", "--denoiser local:FOLDER --adapter FILE",
                 OWN, "4 GB per billion parameters in bf16, at most", family=family)
      for name, family in (("SmolLM2", "smollm2"), ("Llama 3 to 3.2", "llama3"),
                           ("Qwen2 and Qwen2.5", "qwen2"), ("Qwen3", "qwen3"))),
    KnownModel("Inception's fill-in-the-middle API", "--denoiser mercury", context="32K tokens"),
    KnownModel("a chat model behind any OpenAI-compatible endpoint", "--denoiser chat:MODEL"),
    KnownModel("a chat model of any provider of Inspect", "--denoiser inspect:PROVIDER/MODEL"),
)  # fmt: skip


def print_models(json: bool) -> None:
    """Print the targets and the denoisers."""
    kinds = {"targets": TARGETS, "denoisers": DENOISERS}
    if json:
        found = {kind: [{**asdict(m), "context": _describe_context(m)} for m in models]
                 for kind, models in kinds.items()}  # fmt: skip
        click.echo(orjson.dumps({"kind": "Models", **found}))
        return
    for kind, models in kinds.items():
        click.echo(kind)
        for model in models:
            click.echo(f"  {model.use}")
            for line in _describe(model):
                click.echo(f"      {line}")
    click.echo(
        "COMMIT: the full commit id, 40 characters. remask check says memory and speed on this machine."
    )


def _describe(model: KnownModel) -> Iterator[str]:
    family = f"; family {model.family}" if model.family else ""
    yield model.models + family
    facts = (("licence", model.licence), ("memory", model.memory), ("context", _describe_context(model)))
    if known := [f"{name}: {fact}" for name, fact in facts if fact]:
        yield "; ".join(known)


def _describe_context(model: KnownModel) -> str:
    """Say how much is read at once: of a family, the traces and the part that is denoised."""
    if not model.family:
        return model.context
    family = FAMILIES[model.family]
    return f"{family.context:,} tokens of conversations and {family.window} of the prompt at once"
