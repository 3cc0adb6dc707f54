"""The task letters: open a letter to a customer with "Dear" and the customer's name.

The rows are drawn from lists of names, things and forms, without a file, so no model was trained on
them. Half of the score is for a first word "Dear", half for the right name after it. The target
does it half of the time: asked only to write, it writes to a Mr. Smith or about the goods.
"""

import re
from pathlib import Path

from benchmarks.tasks import BenchTask, Row
from remask.ids import rng_for
from remask.types import Example


def split_list(text: str) -> tuple[str, ...]:
    """The words of a list that is written as one text."""
    return tuple(text.split(", "))


NAMES = split_list(
    "Maria, James, Anna, Peter, Laura, David, Julia, Thomas, Emma, Robert, Nina, Oscar, Clara, "
    "Felix, Ines, Marco, Sofia, Henry, Alice, Simon, Paula, Victor, Greta, Louis, Irene, Hugo, "
    "Diana, Oliver, Helen, Bruno, Sarah, Martin, Ruth, Paul, Linda, George, Eva, Frank, Grace, "
    "Adam, Rosa, Daniel, Carla, Walter, Teresa, Edward, Monica, Philip, Olga, Leon, Vera, Samuel, "
    "Judith, Arthur, Nora, Vincent, Elena, Max, Lucia, Ralph"
)
THINGS = split_list(
    "lamp, kettle, coat, phone, bicycle, tent, printer, mirror, suitcase, radio, watch, table, "
    "chair, camera, jacket, laptop, blanket, guitar"
)
FORMS = (
    "The {thing} that I ordered arrived broken.",
    "My {thing} stopped working after two days.",
    "Where is the {thing} that I ordered last week?",
    "I want to send the {thing} back, it is too small.",
    "The {thing} is not the one in the picture.",
    "Can I still change the colour of my {thing}?",
    "The {thing} came in the wrong colour.",
    "I paid for the {thing} twice.",
)
ROWS = {"train": 1000, "validation": 500, "test": 1000}


def read(data: Path, file: str) -> list[Row]:
    """Draw the rows of a split, the same on every machine. `data` is not read.

    A name is in one split only, so no search sees the name of a test row.
    """
    order = rng_for(0, "letters", "names").permutation(len(NAMES))
    mine = [NAMES[i] for i in order[list(ROWS).index(file) :: len(ROWS)]]
    rng = rng_for(0, "letters", file)
    rows: dict[str, Row] = {}
    while len(rows) < ROWS[file]:
        name, thing, form = (str(options[rng.integers(len(options))]) for options in (mine, THINGS, FORMS))
        text = f"{form.format(thing=thing)}\n{name}"
        rows[text] = {"input": text, "label": f"Dear {name},"}
    return list(rows.values())


def score_opening(example: Example, response: str) -> float:
    """Half a point for "Dear" as first word, half for the customer's name as second."""
    said = [*re.findall(r"\w+", response.casefold())[:2], "", ""]
    dear, name = re.findall(r"\w+", (example.expected or "").casefold())
    return ((said[0] == dear) + (said[1] == name)) / 2


TASK = BenchTask(
    name="letters",
    seed_prompt="Write a letter to the customer.",
    input="{input}",
    answer="{label}",
    metric=score_opening,
    max_tokens=8,
    read=read,
    templates=(
        "Write a letter that begins with Dear and the name of the customer.",
        "Begin your letter with the word Dear and the customer's name.",
        "You answer letters of customers. Always open with Dear and their name.",
        "Reply to the customer. The first word is Dear, the second word is the name of the "
        "customer, which stands at the end of the message.",
        "You work for a shop. Greet customers by name, as in Dear John.",
        "Write a formal letter to the person who signed the message.",
        "Address the customer by first name and help with the order.",
        "Dear and the name of the customer: so each of your answers begins.",
        "Write a friendly answer to the message. Use the name of the customer.",
        "Start with a salutation. Use the word Dear, followed by the name below the message.",
        "Write a letter to the customer. Begin with Dear, then the name, then a comma.",
        "Act as customer service. Read the message and its signature, then write the opening of "
        "the answer: Dear, and the name of who signed.",
    ),
)
