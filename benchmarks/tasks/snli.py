"""SNLI: does a premise entail a hypothesis, contradict it, or neither."""

from pathlib import Path

from benchmarks.tasks import BenchTask, Row, jsonl


def read(data: Path, file: str) -> list[Row]:
    return jsonl(data, "snli", file)


TASK = BenchTask(
    name="snli",
    seed_prompt="Classify the pair.",
    input="Premise: {premise}\nHypothesis: {hypothesis}",
    answer="The answer is {label}.",
    labels=("entailment", "neutral", "contradiction"),
    read=read,
    templates=(
        "Does the premise entail the hypothesis? Answer entailment, neutral or contradiction.",
        "You are an expert in natural language inference. Classify the relation between "
        "premise and hypothesis.",
        "If the hypothesis must be true given the premise, answer entailment. If it "
        "cannot be true, answer contradiction. If it may be true, answer neutral.",
        "Read the premise. Then decide if the hypothesis is definitely true (entailment),"
        " definitely false (contradiction) or unknown (neutral).",
        "Natural language inference. Output one word: entailment, neutral or contradiction.",
        "Imagine the scene of the premise. Is the hypothesis right about it, wrong about "
        "it, or does it add something that one cannot know?",
        "Textual entailment: the premise describes a photo. Judge whether the hypothesis "
        "describes the same photo.",
        "Compare the two sentences. Same meaning or less detail: entailment. New detail: "
        "neutral. Conflict: contradiction.",
        "You will get a premise and a hypothesis. Say how they are related and do not explain.",
        "Check each claim of the hypothesis against the premise. All supported: "
        "entailment. One refuted: contradiction. Otherwise: neutral.",
        "Determine whether the second sentence follows from the first.",
        "Label the pair of sentences with entailment, contradiction or neutral. Be "
        "strict: what is not said is neutral.",
    ),
)
