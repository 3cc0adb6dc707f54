"""SST-2, SNLI, MRPC and SST-5 by forced choice; SST-2 also with answers in the target's words."""

from dataclasses import replace
from functools import partial

from benchmarks.tasks import BenchTask, jsonl

SST2 = BenchTask(  # is a sentence of a film review positive or negative
    name="sst2",
    seed_prompt="Classify the sentiment.",
    input="{input}",
    answer="The sentiment is {label}.",
    labels=("negative", "positive"),
    read=partial(jsonl, "sst2"),
    templates=(
        "Is this movie review positive or negative?",
        "You are a sentiment classifier. Decide whether the text is positive or negative.",
        "Read the sentence from a film review and say if the writer liked the film. "
        "Answer positive or negative.",
        "Determine the overall sentiment of the following review. Possible answers: positive, negative.",
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

SNLI = BenchTask(  # does a premise entail a hypothesis, contradict it, or neither
    name="snli",
    seed_prompt="Classify the pair.",
    input="Premise: {premise}\nHypothesis: {hypothesis}",
    answer="The answer is {label}.",
    labels=("entailment", "neutral", "contradiction"),
    read=partial(jsonl, "snli"),
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

MRPC = BenchTask(  # do two sentences of the news say the same
    name="mrpc",
    seed_prompt="Compare the sentences.",
    input="Sentence 1: {sentence1}\nSentence 2: {sentence2}",
    answer="The sentences are {label}.",
    labels=("not_equivalent", "equivalent"),
    read=partial(jsonl, "mrpc"),
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
        "Two sentences are equivalent if they express the same main idea, even if small details differ.",
        "You will get two sentences. Label the pair as equivalent or not_equivalent and do not explain.",
        "Determine whether sentence 2 is a rewording of sentence 1.",
        "Most pairs share many words. Look at what is actually claimed, then decide "
        "whether the claims are equivalent.",
    ),
)

SST5 = BenchTask(  # the sentiment of a sentence of a film review on five levels
    name="sst5",
    seed_prompt="Rate the sentiment.",
    input="{input}",
    answer="The sentiment is {label}.",
    labels=("very negative", "negative", "neutral", "positive", "very positive"),
    read=partial(jsonl, "sst5"),
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
        "Decide first whether the review is good, bad or mixed. Then decide whether the feeling is strong.",
        "Label the user's text with its sentiment. Do not explain.",
    ),
)

# The target answers in its own words, as one behind an API does. The first label in the answer
# counts, and an answer without one is wrong. So a prompt must also say what an answer looks like.
# In a forced choice between the labels this target gains nothing by a better prompt.
REVIEWS = replace(
    SST2,
    name="reviews",
    seed_prompt="Classify the sentiment as positive or negative.",
    free=True,
    max_tokens=12,
)
SST5_FREE = replace(SST5, name="sst5_free", free=True, max_tokens=12)
SNLI_FREE = replace(SNLI, name="snli_free", free=True, max_tokens=12)
MRPC_FREE = replace(MRPC, name="mrpc_free", free=True, max_tokens=12)
TASKS = {task.name: task for task in (SST2, REVIEWS, SNLI, MRPC, SST5, SST5_FREE, SNLI_FREE, MRPC_FREE)}
