"""Contacts, a generation task made here: copy the full name of the customer out of a message.

The rows are drawn from lists of names, cities and things, without a file, so that nobody can have
trained on them. The score is the F1 of words. The target half can do it: it finds the name and
then talks on, or answers the message.
"""

from pathlib import Path

from remask.identity import rng_for
from tasks import BenchTask, Row


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


FIRST = _listed(
    "Maria, James, Anna, Peter, Laura, David, Julia, Thomas, Emma, Robert, Nina, Oscar, "
    "Clara, Felix, Ines, Marco, Sofia, Henry, Alice, Simon, Paula, Victor, Greta, Louis, "
    "Irene, Hugo, Diana, Oliver, Helen, Bruno"
)
LAST = _listed(
    "Lopez, Smith, Weber, Novak, Rossi, Carter, Jensen, Moreau, Keller, Santos, Larsen, "
    "Murphy, Fischer, Costa, Bennett, Hansen, Romano, Walker, Dubois, Schmidt, Garcia, Olsen, "
    "Turner, Ricci, Baker, Mendes"
)
CITY = _listed(
    "Lisbon, Berlin, Oslo, Paris, Madrid, Vienna, Dublin, Rome, Prague, Athens, Boston, Denver"
)
THING = _listed(
    "a lamp, two chairs, a kettle, a blue coat, three books, a phone case, a bicycle, a tent, "
    "a printer, garden tools, a mirror, running shoes, a coffee machine, a suitcase"
)
DAY = _listed("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
FORMS = (
    "{name} from {city} ordered {thing} on {day}.",
    "On {day}, {name} wrote from {city} to ask about {thing}.",
    "Please send {thing} to {name} in {city} by {day}.",
    "The order of {thing} arrived broken on {day}, says {name} in {city}.",
    "We owe {name} a refund for {thing}, to be paid in {city} on {day}.",
    "{thing}, returned by {name} on {day}, came from {city}.",
)
ROWS = {"train": 1000, "validation": 500, "test": 600}


def read(data: Path, file: str) -> list[Row]:
    """Rows of a file that is not there: drawn, the same on every machine. A person is in one file
    only, so that no name of a test row is met before."""
    people = [f"{first} {last}" for first in FIRST for last in LAST]
    order = rng_for(0, "contacts", "people").permutation(len(people))
    third = len(people) // len(ROWS)
    part = list(ROWS).index(file)
    mine = [people[i] for i in order[part * third : (part + 1) * third]]
    rng = rng_for(0, "contacts", file)
    rows: dict[str, Row] = {}
    while len(rows) < ROWS[file]:
        name, city, thing, day, form = (
            str(options[rng.integers(len(options))]) for options in (mine, CITY, THING, DAY, FORMS)
        )
        text = form.format(name=name, city=city, thing=thing, day=day)
        rows[text] = {"input": text[0].upper() + text[1:], "label": name}
    return list(rows.values())


TASK = BenchTask(
    name="contacts",
    seed_prompt="Name the customer.",
    input="{input}",
    answer="{label}",
    metric="f1",
    max_tokens=8,
    read=read,
    templates=(
        "Which person is named in the message?",
        "Answer with the full name of the person in the message, and nothing else.",
        "Extract the customer's first and last name from the message. Write only the name.",
        "You are an information extraction system. Output the name of the customer.",
        "Read the message of a shop and copy the name of the person in it.",
        "Who is the customer? Reply with two words: first name and last name.",
        "Find the person's name in the text. Do not explain and do not write a sentence.",
        "Your task is to find names. The user sends a message; you reply with the name in it.",
        "Write the name of the person exactly as it stands in the message.",
        "Named entity recognition: return the entity of type PERSON.",
        "Ignore the city, the day and the product. Write only who the message is about.",
        "Answer in English with the full name only, such as John Brown.",
    ),
)
