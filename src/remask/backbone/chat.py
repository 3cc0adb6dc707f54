"""How a turn of a chat is written around untrusted text.

Frames are data: names of special tokens, which only the frame itself may hold, and the ordinary
text between them. Knows no tokenizer, no model and no conversation.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Frame:
    """The parts of one turn: start, role, middle, gap, text, end, after."""

    start: str  # special token
    middle: str  # special token behind the role; "": none
    gap: str  # ordinary text between role and text
    end: str  # special token
    after: str  # ordinary text behind a turn
    first: str = ""  # special token before the first turn of a chat; "": none

    @property
    def tokens(self) -> tuple[str, ...]:
        """The special tokens that a tokenizer must know."""
        return tuple(name for name in (self.first, self.start, self.middle, self.end) if name)


# SmolLM2, Qwen and what was made of Qwen: Dream, SDAR, Tiny-A2D; many fine-tuned Llamas.
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

# Llama 3, https://www.llama.com/docs/model-cards-and-prompt-formats/meta-llama-3
LLAMA3 = replace(HEADERS, first="<|begin_of_text|>")
