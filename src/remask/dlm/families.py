"""The conventions of each family of diffusion language models, as a table.

A family is data: the mask's id, the ids that a fill may not contain, the shift of predictions, the
attention, sizes, how its checkpoints are recognised, and its layout of traces (`render.py`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from remask.errors import BackendError

UNUSED_ID = -1  # placeholder of the first id for which the tokenizer has no token

# region: the context is read left to right, and only the prompt region attends in both directions,
# to itself and to the whole context. full: every token sees every token. blocks: a token sees its
# own block and the blocks before it. canvas: as region, by one model that needs no adapter. noise:
# as canvas, but the model was trained on random tokens instead of masks; `mask` only marks the
# positions that hold them.
Attention = Literal["region", "full", "blocks", "canvas", "noise"]


@dataclass(frozen=True, slots=True)
class Family:
    """The conventions of one family of models.

    The numbers are those of the published checkpoints; `resolve_family` replaces them by what a
    checkpoint states.
    """

    name: str
    mask: int  # token id, or SPARE
    special: tuple[int, ...]  # ids that no fill may contain; added tokens are always among them
    shifted: bool  # position i is predicted by the logits of i - 1
    window: int  # prompt tokens denoised at once; longer windows were rare in training
    context: int  # tokens for the traces and the rest of the prompt
    rest: int  # of those, tokens for the rest of the prompt
    steps: int = 24  # denoising steps per window, at most, unless the caller gives a number
    layout: int = 1  # version of `render.render`; an adapter states the one it was trained on
    attention: Attention = "region"
    delete: int = -1  # token id that an adapter writes at superfluous positions; -1: none
    block: int = 0  # tokens of a block, if attention is by blocks
    block_setting: str = "block_size"  # of config.json, which wins over `block`
    mask_token: str = ""  # name of the mask, if its id may differ between checkpoints
    delete_token: str = ""  # name of the delete token, likewise
    threshold: float = 0.9  # probability from which a token is kept, unless the caller gives one
    edit_threshold: float | None = None  # above which a written token is corrected; None: never
    format: str = ""  # a name of checkpoint_formats.FORMATS; "": not loaded as a checkpoint
    marker: str = ""  # part of a checkpoint's name that distinguishes families of one format


LLADA = Family(  # 8B Base and Instruct, and LLaDA 1.5
    name="llada",
    mask=126336,  # <|mdm_mask|>
    special=(126080, 126081, 126336, 126346, 126347, 126348),
    shifted=False,
    window=256,
    context=3000,  # trained on 4,096
    rest=500,
    attention="full",
    format="llada",
)
DREAM = Family(  # Dream 7B and Dream-Coder 7B
    name="dream",
    mask=151666,  # <|mask|>
    special=(151643, 151644, 151645, 151665, 151666),
    shifted=True,
    window=256,
    context=1500,  # trained on 2,048
    rest=300,
    attention="full",
    format="dream",
)
DREAMON = replace(  # 7B, made of Dream-Coder
    DREAM,
    name="dreamon",
    # It also predicts <|expand|>, which asks for one more mask, and <|endoftext|>, which asks for
    # one less. Holes keep their length here, so a fill contains neither.
    special=(*DREAM.special, 151667),
    marker="dreamon",
)
ILLADA = replace(  # 8B Base and Instruct
    LLADA,
    name="illada",
    mask=5,  # <[MASK]>
    special=(0, 1, 2, 5),
    format="illada",
)
LLADA_MOE = replace(  # 7B-A1B Base and Instruct
    LLADA,
    name="llada-moe",
    mask=156895,
    mask_token="<|mask|>",
    special=(156891, 156892, 156895),
    format="llada-moe",
)
SDAR = Family(  # 1.7B, 4B and 8B; not the mixture of experts
    name="sdar",
    mask=151669,  # <|MASK|>
    special=(151643, 151644, 151645, 151669),
    shifted=False,
    window=256,
    context=3000,
    rest=500,
    attention="blocks",
    block=4,
    format="sdar",
)
STABLE_DIFFCODER = replace(  # 8B Base and Instruct, made of Seed-Coder
    SDAR, name="stable-diffcoder", mask=5, special=(0, 1, 2, 5), format="stable-diffcoder"
)
LLADA2 = replace(  # 2.0-mini
    SDAR,
    name="llada2",
    mask=156895,
    mask_token="<|mask|>",
    special=(156891, 156892, 156895),
    block=32,
    threshold=0.95,
    format="llada2",
)
LLADA2_1 = replace(  # 2.1-mini, with the thresholds of its own sampler
    LLADA2, name="llada2.1", threshold=0.7, edit_threshold=0.5, marker="llada2.1"
)
FAST_DLLM_V2 = replace(  # 1.5B and 7B, made of Qwen2.5
    SDAR,
    name="fast-dllm-v2",
    mask=151665,
    mask_token="|<MASK>|",
    special=(151643, 151644, 151645, 151665),
    # The first token of a block is predicted by the last one of the finished block before it.
    shifted=True,
    block=32,
    block_setting="bd_size",
    format="fast-dllm-v2",
)
NEMOTRON = Family(  # Nemotron-Labs-Diffusion 3B, 8B and 14B
    name="nemotron-labs-diffusion",
    mask=100,
    special=(0, 1, 2, 10, 11, 100),
    shifted=False,
    window=32,  # the block that the model was trained on
    context=3000,
    rest=500,
    attention="canvas",
    format="nemotron-labs-diffusion",
)
DIFFUSION_GEMMA = Family(  # 26B-A4B
    name="diffusion-gemma",
    mask=0,
    mask_token="<pad>",
    special=(0, 1, 2, 105, 106),
    shifted=False,
    window=256,  # the canvas that the model was trained on
    context=3000,
    rest=500,
    attention="noise",
    format="diffusion-gemma",
)
TINY_A2D = Family(  # made of Qwen3-0.6B; both variants have the same config.json
    name="tiny-a2d-mdlm",
    mask=151669,
    special=(151643, 151644, 151645, 151669),
    shifted=False,
    window=128,
    context=800,  # trained on 1,024
    rest=200,
    attention="full",
    mask_token="<|mask|>",
    format="a2d-qwen3",
    marker="mdlm",
)

# The families that `remask adapt` makes of left-to-right models. The id of a mask occurs in no text
# and no chat, so its embedding has no meaning and an adapter replaces it. The delete token is
# predicted by its own row of the frozen head, so it must be a token that the base has learnt, but
# that occurs in no text and no chat frame. Windows and contexts are those that the built-in model
# is trained with.
BUILTIN = Family(
    name="smollm2-135m",
    mask=16,  # <empty_output>, which was not in the base's training text
    special=tuple(range(17)),
    shifted=True,
    window=128,
    context=1500,
    rest=300,
    steps=8,  # more cannot be told apart by the scores of a search (docs/results/steps.md)
    delete=4,  # <reponame>: rare in the base's training text, and its row differs from the mask's
)
SMOLLM2 = replace(  # 135M, 360M and 1.7B from disk; the tokenizer is that of the built-in model
    BUILTIN,
    name="smollm2",
    mask_token="<empty_output>",
    delete_token="<reponame>",
    special=(),  # `resolve_family` adds those of the tokenizer
    format="llama",
)
LLAMA3 = replace(  # 3 to 3.2
    SMOLLM2,
    name="llama3",
    # Embeddings of reserved tokens are untrained and near zero: meta-llama/llama3 issue 77.
    mask=128002,
    mask_token="<|reserved_special_token_0|>",
    delete=128001,
    delete_token="<|end_of_text|>",
)
QWEN2 = replace(  # Qwen2 and Qwen2.5
    SMOLLM2,
    name="qwen2",
    # Qwen2 has no reserved token, but its vocabulary is padded to 151,936 or 152,064 ids. Those
    # from 151,646 on (Qwen2.5: 151,665; Qwen3: 151,669) were not used in training: QwenLM/Qwen3
    # issues 29 and 885.
    mask=UNUSED_ID,
    mask_token="",
    delete=151643,  # ends a document; turns of a chat end with <|im_end|>
    delete_token="<|endoftext|>",
    format="qwen2",
)

FAMILIES = {
    row.name: row
    for row in (
        BUILTIN,
        SMOLLM2,
        LLAMA3,
        QWEN2,
        replace(QWEN2, name="qwen3", format="qwen3"),
        LLADA,
        DREAM,
        DREAMON,
        ILLADA,
        LLADA_MOE,
        LLADA2,
        LLADA2_1,
        FAST_DLLM_V2,
        STABLE_DIFFCODER,
        DIFFUSION_GEMMA,
        NEMOTRON,
        SDAR,
        # The names of chat models trained on longer blocks end like SDAR-4B-Chat-b16.
        *(replace(SDAR, name=f"sdar-b{size}", block=size, marker=f"-b{size}") for size in (8, 16, 32, 64)),
        TINY_A2D,
        replace(
            TINY_A2D,
            name="tiny-a2d-bd3lm",
            attention="blocks",
            block=32,
            context=350,  # trained on 512
            rest=100,
            marker="bd3lm",
        ),
    )
}


def find_family(
    format: str, checkpoint: str, name: str | None = None, tokens: Collection[str] = ()
) -> Family:
    """Find the family of a checkpoint by its format and its name, or by the `name` the user gives.

    Families whose mask is one of the added `tokens` go first, then those with the longest marker in
    the checkpoint's name. Raises BackendError if no family fits.
    """
    rows = [row for row in FAMILIES.values() if row.format == format]
    names = ", ".join(row.name for row in rows)
    if name is not None:
        chosen = [row for row in rows if row.name == name]
        wrong = f"the family {name!r} does not fit its format {format}; name one of {names}"
    else:
        marked = [row for row in rows if row.marker.lower() in checkpoint.lower()]
        chosen = sorted(marked, key=lambda row: (row.mask_token in tokens, len(row.marker)), reverse=True)
        wrong = f"its name does not identify its family; name one of {names}"
    if not chosen:
        raise BackendError(f"{checkpoint}: {wrong}")
    return chosen[0]


def resolve_family(
    family: Family,
    checkpoint: str,
    settings: Mapping[str, Any],
    added: Mapping[str, int],
    size: int,
    unused_id: int = -1,
) -> Family:
    """Fill in what a checkpoint states: mask, delete token, block size, and its added tokens as
    special ids.

    `settings` is its config.json, `added` the names and ids of the tokenizer's added tokens, `size`
    the number of ids of the model, and `unused_id` the first id that the tokenizer has no token
    for. Raises BackendError if they contradict each other.
    """
    if family.mask == UNUSED_ID and not 0 <= unused_id < size:
        raise BackendError(
            f"{checkpoint}: its tokenizer has a token for each of the model's {size} ids, so none "
            "is left for the mask"
        )
    ids = {**added, "": unused_id if family.mask == UNUSED_ID else family.mask}
    named = ids.get(family.mask_token)
    delete = added.get(family.delete_token) if family.delete_token else family.delete
    if named is None or delete is None:
        lacks = family.mask_token if named is None else family.delete_token
        raise BackendError(f"{checkpoint}: its tokenizer has no token {lacks} ({family.name})")
    # A left-to-right model was not trained with masks, so its settings cannot name one.
    mask = None if family.attention == "region" else settings.get("mask_token_id")
    mask = named if mask is None else mask
    if family.mask_token and mask != named:
        raise BackendError(
            f"{checkpoint}: config.json has mask_token_id {mask}, but the tokenizer's "
            f"{family.mask_token} is {named}"
        )
    if type(mask) is not int or not 0 <= mask < size:
        raise BackendError(f"{checkpoint}: its mask is {mask}, but the model has only {size} ids")
    block = family.block
    if family.attention == "blocks":
        block = settings.get(family.block_setting) or family.block
        if type(block) is not int or block < 1:
            raise BackendError(
                f"{checkpoint}: config.json has {family.block_setting} {block!r}; it must be a positive "
                "whole number"
            )
    special = {mask, *added.values(), *(i for i in family.special if i < size)}
    return replace(family, mask=mask, delete=delete, block=block, special=tuple(sorted(special)))
