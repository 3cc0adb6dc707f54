"""The task subject: open an e-mail with "Subject:" and a first line that names the product.

The rows are drawn from lists of things and forms, without a file. Half of the score is for a first
word "Subject", half for the product on the same line. Asked only to write, the target repeats the
message or greets somebody.
"""

import re
from pathlib import Path

from benchmarks.tasks import BenchTask, Row
from benchmarks.tasks.complaints import draw_complaints
from remask.types import Example


def read(data: Path, file: str) -> list[Row]:
    """Draw the rows of a split, the same on every machine. `data` is not read."""
    drawn = draw_complaints("subject", file)
    return [{"input": text, "label": f"Subject: your {thing}"} for text, thing in drawn]


def score_subject(example: Example, response: str) -> float:
    """Half a point for "Subject" as first word, half for the product after it in the first line."""
    first = response.strip().casefold().partition("\n")[0]
    words = re.findall(r"\w+", first)
    thing = (example.expected or "").casefold().split()[-1]
    return float(words[:1] == ["subject"]) * (1 + (thing in words)) / 2


TASK = BenchTask(
    name="subject",
    seed_prompt="Write an email.",
    input="{input}",
    answer="{label}",
    metric=score_subject,
    max_tokens=12,
    read=read,
    templates=(
        "Write an email about the product. Begin with Subject: and the product.",
        "Write an email that begins with Subject: and the complaint.",
        "Begin your email with the word Subject, a colon, and the product of the message.",
        "Write only the subject line. It begins with Subject: and names the product.",
        "You answer complaints by email. The first line is the subject and names the product.",
        "Write an email to the customer. The first line says Subject: and then which product it is about.",
        "Start with Subject: and name the thing that the customer ordered.",
        "Summarise the complaint as the subject line of an email, as in Subject: broken plate.",
        "Write a formal email with a subject line to the customer who complained.",
        "Read the message and find the product. Then write Subject: followed by the product.",
        "Write only the subject line. It begins with Subject: and repeats the complaint.",
        "Act as customer service. Open a reply by email with its subject, which names the product.",
    ),
)
