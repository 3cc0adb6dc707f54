"""Reviews: SST-2 as targets behind an API are asked. The target answers in its own words, and the
first label in them counts; an answer without one is wrong. So a prompt must also say what an answer
looks like, where a forced choice between the labels leaves this target nothing to gain by it.
"""

from dataclasses import replace

from benchmarks.tasks import sst2

TASK = replace(
    sst2.TASK,
    name="reviews",
    seed_prompt="Classify the sentiment as positive or negative.",
    free=True,
    max_tokens=12,
)
