"""A model from disk as target, beside the transformers library on the same weights and rows.

    python -m benchmarks.local_target --model PLACE --data FILE.jsonl [--rows 200] [--tokens 16]
        [--only choose|answer] [--llama-cpp] [--out FILE]

PLACE is a checkpoint folder or a GGUF file; the rows have the keys input and label. All chats share
one system message. The library reads batches of 16 chats of similar length, padded on the left: for
answers with `generate`, for choices with one forward pass whose last logits rank the labels, which
must be one token each. Both sides compute in float32 on the same threads. With --llama-cpp the same
GGUF file also answers in llama.cpp (`pip install xllamacpp`), which computes in the file's own small
numbers. Prints the seconds of each side, how many answers agree, and the ratio; above 1 the target is
faster.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.record import RESULTS, describe_run, make_parser, write_json
from remask.models.backbone.chat_template import ChatTemplate
from remask.models.backbone.checkpoint import Checkpoint, load_checkpoint
from remask.models.builtin import BuiltinTarget
from remask.types import Chat, Message

PROMPT = (
    "You label sentences of film reviews. Read the whole sentence and decide what its author thinks of the "
    "film: positive if the author recommends it, negative if not. Irony counts as what is meant. Answer "
    "with exactly one word, positive or negative, and say nothing else."
)
BATCH = 16
WINDOW = 1024  # tokens of a chat in llama.cpp


class Library:
    """The transformers library on the same weights."""

    def __init__(self, found: Checkpoint, chats: Sequence[Chat], tokens: int) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(found.folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(found.folder, padding_side="left")
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.stops = sorted(ChatTemplate(found.folder, found.backbone.tokenizer, found.name).stops)
        self.texts = [
            self.tokenizer.apply_chat_template(
                [{"role": m.role, "content": m.content} for m in chat],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
            for chat in chats
        ]
        self.tokens = tokens

    def run(self, work: Callable[[Any], list[str]]) -> list[str]:
        """Do `work` on padded batches of similar length; return its texts in the order of the chats."""
        order = sorted(range(len(self.texts)), key=lambda i: len(self.texts[i]))
        found = {}
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            batch = self.tokenizer(
                [self.texts[i] for i in part], return_tensors="pt", padding=True, add_special_tokens=False
            )
            found |= dict(zip(part, work(batch), strict=True))
        return [found[i] for i in range(len(order))]

    def answer(self, batch: Any) -> list[str]:
        out = self.model.generate(
            **batch, do_sample=False, max_new_tokens=self.tokens, eos_token_id=self.stops,
            pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        written = out[:, batch["input_ids"].shape[1] :]
        texts: list[str] = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        return texts

    def choose(self, batch: Any, labels: Sequence[str]) -> list[str]:
        ids = [self.tokenizer(label, add_special_tokens=False)["input_ids"] for label in labels]
        assert all(len(one) == 1 for one in ids), "the labels must be one token each"
        position = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        logits = self.model(**batch, position_ids=position, logits_to_keep=1).logits[:, -1]
        best = logits[:, [one[0] for one in ids]].argmax(1).tolist()
        return [labels[i] for i in best]


class LlamaCpp:
    """llama.cpp on the same GGUF file, with as many chats at a time as the library reads."""

    def __init__(self, file: str, tokens: int, threads: int) -> None:
        import xllamacpp

        settings = xllamacpp.CommonParams()
        settings.model.path = file
        settings.n_parallel, settings.n_ctx = BATCH, BATCH * WINDOW
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        self.server, self.tokens = xllamacpp.Server(settings), tokens

    def answer(self, chats: Sequence[Chat]) -> list[str]:
        with ThreadPoolExecutor(BATCH) as pool:
            return list(pool.map(self._answer_one, chats))

    def _answer_one(self, chat: Chat) -> str:
        messages = [{"role": m.role, "content": m.content} for m in chat]
        asked = {"messages": messages, "max_tokens": self.tokens, "temperature": 0}
        text: str = self.server.handle_chat_completions(asked)["choices"][0]["message"]["content"]
        return text


def measure(work: Callable[[], list[str]]) -> tuple[float, list[str]]:
    began = time.monotonic()
    with torch.inference_mode():
        found = work()
    return time.monotonic() - began, found


def compare(
    name: str, ours: Callable[[], list[str]], others: Mapping[str, Callable[[], list[str]]]
) -> dict[str, Any]:
    """Measure remask and the others, one after the other, on the same work."""
    seconds, found = measure(ours)
    result: dict[str, Any] = {"rows": len(found), "seconds": round(seconds, 2)}
    for other, work in others.items():
        other_seconds, texts = measure(work)
        same = sum(a == b for a, b in zip(found, texts, strict=True))
        ratio = round(other_seconds / seconds, 3)
        result[other] = {"seconds": round(other_seconds, 2), "ratio": ratio, "equal": same}
        print(
            f"{name}: remask {seconds:.1f} s, {other} {other_seconds:.1f} s, ratio {ratio:.2f}, "
            f"{same} of {len(found)} equal",
            flush=True,
        )
    return result


def main() -> None:
    parser = make_parser(__file__, __doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--only", choices=("choose", "answer"))
    parser.add_argument("--llama-cpp", action="store_true", help="Ask llama.cpp for answers too.")
    parser.add_argument("--out", type=Path, default=RESULTS / "local_target.json")
    flags = parser.parse_args()
    about = describe_run(__file__, None, Path(flags.model), flags.data, flags.out)
    rows = [json.loads(line) for line in flags.data.read_text("utf-8").splitlines()[: flags.rows]]
    chats = [(Message("system", PROMPT), Message("user", row["input"])) for row in rows]
    labels = sorted({row["label"] for row in rows})
    found = load_checkpoint(flags.model, device="cpu", dtype=torch.float32, framed=False)
    layout = ChatTemplate(found.folder, found.backbone.tokenizer, found.name)
    library = Library(found, chats, flags.tokens)

    def make() -> BuiltinTarget:  # a new one has no prefix in its cache
        return BuiltinTarget(found.backbone, flags.tokens, layout, "local")

    results: dict[str, Any] = {}
    if flags.only != "answer":
        results["choose"] = compare(
            "choices",
            lambda: [reply.text for reply in make().choose(chats, labels)],
            {"transformers": lambda: library.run(lambda batch: library.choose(batch, labels))},
        )
    if flags.only != "choose":
        others = {"transformers": lambda: library.run(library.answer)}
        if flags.llama_cpp:
            other = LlamaCpp(flags.model, flags.tokens, torch.get_num_threads())
            others["llama.cpp"] = lambda: other.answer(chats)
        results["answer"] = compare(
            "answers", lambda: [reply.text for reply in make().respond(chats)], others
        )
    model = {"name": found.name, "threads": torch.get_num_threads(), "tokens": flags.tokens}
    write_json(flags.out, {**about, "model": model, **results})


if __name__ == "__main__":
    main()
