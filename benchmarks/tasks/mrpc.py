"""MRPC: do two sentences of the news say the same."""

from pathlib import Path

from benchmarks.tasks import BenchTask, Row, jsonl


def read(data: Path, file: str) -> list[Row]:
    return jsonl(data, "mrpc", file)


TASK = BenchTask(
    name="mrpc",
    seed_prompt="Compare the sentences.",
    input="Sentence 1: {sentence1}\nSentence 2: {sentence2}",
    answer="The sentences are {label}.",
    labels=("not_equivalent", "equivalent"),
    read=read,
    templates=(
        "Are these two sentences paraphrases of each other? Answer equivalent or not_equivalent.",
        "Decide whether both sentences have the same meaning.",
        "You are a careful editor. Say whether the two sentences report the same facts.",
        "Paraphrase detection. Output equivalent or not_equivalent.",
        "If one sentence has facts that the other lacks, the sentences are "
        "not_equivalent. If both say the same in other words, they are equivalent.",
        "Compare names, numbers and events. If they agree, answer equivalent; if any "
        "differs, answer not_equivalent.",
        "Read both sentences from the news and judge if a reader would learn the same from each.",
        "Could one sentence replace the other in an article without changing what it says?",
        "Two sentences are equivalent if they express the same main idea, even if small "
        "details differ.",
        "You will get two sentences. Label the pair as equivalent or not_equivalent and "
        "do not explain.",
        "Determine whether sentence 2 is a rewording of sentence 1.",
        "Most pairs share many words. Look at what is actually claimed, then decide "
        "whether the claims are equivalent.",
    ),
)
