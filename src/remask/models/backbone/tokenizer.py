"""The tokenizer of a checkpoint, safe for untrusted text, and the frames of chat turns.

It reads tokenizer.json, or for a checkpoint without one (Dream) vocab.json and merges.txt with the
pre-tokenizer of Qwen2. Tokens that only tokenizer_config.json or added_tokens.json lists are added.
Text never encodes to an added token, special or not. A frame consists of special tokens, which only
the frame itself may contain, and of the ordinary text between them. No code of a checkpoint is run.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from remask.errors import BackendError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "added_tokens.json", "vocab.json", "merges.txt")
# The pre-tokenizer of Qwen2 (transformers, tokenization_qwen2.py).
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


# -- the tokenizer --------------------------------------------------------------------------------


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer in `folder`. Raises BackendError if it is missing or damaged."""
    try:
        tokenizer = _read_tokenizer(folder)
        _add_missing(tokenizer, _read_added_tokens(folder, tokenizer), folder)
    except BackendError:
        raise
    except Exception as error:  # the tokenizers library raises Exception itself
        raise BackendError(f"{folder}: its tokenizer cannot be read ({error})") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    # Qwen3 has tokens such as <think> that are added but not special, so text could encode to them.
    added = tokenizer.get_added_tokens_decoder().values()
    tokenizer.add_special_tokens([_make_special_token(token.content) for token in added])
    tokenizer.encode_special_tokens = True
    return tokenizer


def _read_tokenizer(folder: Path) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        raise BackendError(f"{folder}: no tokenizer.json, nor vocab.json with merges.txt")
    tokenizer = Tokenizer(BPE.from_file(str(vocabulary), str(merges)))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _read_added_tokens(folder: Path, tokenizer: Tokenizer) -> dict[str, int]:
    """Read the added tokens and their ids from the files next to the tokenizer.

    added_tokens.json can be stale (as that of SDAR-4B-Chat): transformers reads it only where no
    other file names a token. So a name in it is dropped if another file has a name for its id.
    """
    listed: dict[str, int] = {}
    if (path := folder / "tokenizer_config.json").is_file():
        decoder = json.loads(path.read_text("utf-8")).get("added_tokens_decoder", {})
        listed = {token["content"]: int(i) for i, token in decoder.items()}
    taken = set(listed.values())
    if (folder / "tokenizer.json").is_file():
        taken |= set(tokenizer.get_vocab().values())
    older: dict[str, int] = {}
    if (path := folder / "added_tokens.json").is_file():
        older = json.loads(path.read_text("utf-8"))
    return {name: id for name, id in older.items() if id not in taken} | listed


def _add_missing(tokenizer: Tokenizer, named: dict[str, int], folder: Path) -> None:
    """Add tokens in the order of their ids. Raises BackendError if one gets another id."""
    missing = [name for name in named if tokenizer.token_to_id(name) is None]
    tokenizer.add_tokens([_make_special_token(name) for name in sorted(missing, key=named.__getitem__)])
    for name, wanted in named.items():
        if (got := tokenizer.token_to_id(name)) != wanted:
            raise BackendError(
                f"{folder}: the token {name} should have the id {wanted} but gets {got}; the "
                "tokenizer's files do not belong together"
            )


def _make_special_token(name: str) -> AddedToken:
    return AddedToken(name, special=True, normalized=False)


# -- turns of a chat ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frame:
    """The parts of a chat turn: start, role, middle, gap, untrusted text, end, after."""

    start: str  # special token
    middle: str  # special token after the role; "": none
    gap: str  # ordinary text between role and text
    end: str  # special token
    after: str  # ordinary text after a turn
    first: str = ""  # special token before the first turn of a chat; "": none
    roles: tuple[tuple[str, str], ...] = ()  # our names of roles and those of the frame, if they differ

    @property
    def tokens(self) -> tuple[str, ...]:
        """The special tokens that a tokenizer must have."""
        return tuple(name for name in (self.first, self.start, self.middle, self.end) if name)


# SmolLM2, Qwen, the models made of Qwen (Dream, SDAR, Tiny-A2D), and many fine-tuned Llamas.
CHATML = Frame(start="<|im_start|>", middle="", gap="\n", end="<|im_end|>", after="\n")

# The chat template in LLaDA-8B-Instruct's tokenizer_config.json, which also trims the text.
HEADERS = Frame(
    start="<|start_header_id|>",
    middle="<|end_header_id|>",
    gap="\n\n",
    end="<|eot_id|>",
    after="",
    first="<|startoftext|>",
)

# Seed-Coder, and what was made of it (Stable-DiffCoder).
SEED = Frame(start="<[begin▁of▁sentence]>", middle="", gap="\n", end="<[end▁of▁sentence]>", after="")

# LLaDA-MoE and LLaDA2, from their model cards.
ROLES = Frame(
    start="<role>",
    middle="</role>",
    gap="",
    end="<|role_end|>",
    after="",
    roles=(("user", "HUMAN"), ("assistant", "ASSISTANT")),
)

# Gemma 4
TURNS = Frame(
    start="<|turn>",
    middle="",
    gap="\n",
    end="<turn|>",
    after="\n",
    first="<bos>",
    roles=(("assistant", "model"),),
)

# Llama 3, https://www.llama.com/docs/model-cards-and-prompt-formats/meta-llama-3
LLAMA3 = replace(HEADERS, first="<|begin_of_text|>")
