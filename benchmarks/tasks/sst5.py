"""SST-5: the sentiment of a sentence of a film review on five levels."""

from pathlib import Path

from benchmarks.tasks import BenchTask, Row, jsonl


def read(data: Path, file: str) -> list[Row]:
    return jsonl(data, "sst5", file)


TASK = BenchTask(
    name="sst5",
    seed_prompt="Rate the sentiment.",
    input="{input}",
    answer="The sentiment is {label}.",
    labels=("very negative", "negative", "neutral", "positive", "very positive"),
    read=read,
    templates=(
        "Is this movie review very negative, negative, neutral, positive or very positive?",
        "You are a sentiment classifier with five classes: very negative, negative, "
        "neutral, positive, very positive.",
        "Read the sentence from a film review and say how much the writer liked the film,"
        " from very negative to very positive.",
        "Rate the review like stars: one star is very negative, two negative, three "
        "neutral, four positive, five very positive.",
        "Determine the sentiment and its strength. Use very only where the words are strong.",
        "You are an expert film critic. Judge how favourable the opinion in each sentence is.",
        "Fine-grained sentiment analysis. Output one of: very negative, negative, "
        "neutral, positive, very positive.",
        "If the text has no clear opinion, or praise and criticism balance, the sentiment"
        " is neutral. Otherwise it is positive or negative, and very if it is emphatic.",
        "The user sends snippets of movie reviews. Reply with the sentiment of each "
        "snippet on a scale of five.",
        "Pay attention to irony, negation and strong words. Most reviews are plainly "
        "positive or negative; few are extreme.",
        "Decide first whether the review is good, bad or mixed. Then decide whether the "
        "feeling is strong.",
        "Label the user's text with its sentiment. Do not explain.",
    ),
)
