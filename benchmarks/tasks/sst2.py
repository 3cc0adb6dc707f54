"""SST-2: is a sentence of a film review positive or negative."""

from pathlib import Path

from benchmarks.tasks import BenchTask, Row, jsonl


def read(data: Path, file: str) -> list[Row]:
    return jsonl(data, "sst2", file)


TASK = BenchTask(
    name="sst2",
    seed_prompt="Classify the sentiment.",
    input="{input}",
    answer="The sentiment is {label}.",
    labels=("negative", "positive"),
    read=read,
    templates=(
        "Is this movie review positive or negative?",
        "You are a sentiment classifier. Decide whether the text is positive or negative.",
        "Read the sentence from a film review and say if the writer liked the film. "
        "Answer positive or negative.",
        "Determine the overall sentiment of the following review. Possible answers: "
        "positive, negative.",
        "You are an expert film critic. For each sentence, judge whether the opinion it "
        "expresses is favourable (positive) or unfavourable (negative).",
        'Label the sentiment of the user\'s text as "positive" or "negative". Do not explain.',
        "Think about the tone of the review. If it praises the movie, the sentiment is "
        "positive. If it criticises the movie, the sentiment is negative.",
        "Sentiment analysis. Output one word: positive or negative.",
        "Would a person who wrote this recommend the movie? If yes, the sentiment is "
        "positive; if no, it is negative.",
        "Pay attention to irony, negation and words such as but and although. Then "
        "decide: positive or negative.",
        "The user sends snippets of movie reviews. Reply with the sentiment of each "
        "snippet. Good reviews are positive and bad reviews are negative.",
        "Your task is to classify movie reviews. Words like funny, moving and great point"
        " to positive; words like dull, silly and mess point to negative.",
    ),
)
