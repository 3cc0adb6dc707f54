"""Messages of customers about a thing that they ordered, drawn from lists without a file."""

from benchmarks.tasks.letters import split_list
from remask.ids import rng_for

THINGS = split_list(
    "lamp, kettle, coat, phone, bicycle, tent, printer, mirror, suitcase, radio, watch, table, chair, "
    "camera, jacket, laptop, blanket, guitar, clock, wallet, toaster, umbrella, backpack, keyboard, "
    "vase, pillow, helmet, speaker, carpet, drill, scarf, blender, bookcase, monitor, violin, ladder, "
    "stove, hammock, necklace, heater, desk, telescope, sweater, tripod, freezer, bracelet, razor, "
    "trumpet, mattress, raincoat, teapot, scooter, puzzle, wardrobe, tablet, compass, sofa, cradle, "
    "rucksack, piano"
)
FORMS = (
    "The {thing} that I ordered {when} arrived broken.",
    "My {thing} from {when} stopped working.",
    "Where is the {thing} that I ordered {when}?",
    "I want to send the {thing} from {when} back, it is too small.",
    "The {thing} that came {when} is not the one in the picture.",
    "Can I still change the colour of the {thing} that I chose {when}?",
    "The {thing} that you sent {when} has the wrong colour.",
    "I paid for the {thing} twice {when}.",
    "The box of the {thing} was open when it came {when}.",
    "A part of the {thing} that I got {when} is missing.",
)
WHEN = ("last week", "on Monday", "on Tuesday", "on Friday", "two days ago", "in March", "yesterday")
ROWS = {"train": 1000, "validation": 500, "test": 1000}


def draw_complaints(task: str, file: str) -> list[tuple[str, str]]:
    """Draw (message, thing) of each row of a split, the same on every machine.

    A thing is in one split of a task only, so no search sees the thing of a test row.
    """
    order = rng_for(0, task, "things").permutation(len(THINGS))
    mine = [THINGS[i] for i in order[list(ROWS).index(file) :: len(ROWS)]]
    rng = rng_for(0, task, file)
    rows: dict[str, str] = {}
    while len(rows) < ROWS[file]:
        thing, form, when = (str(options[rng.integers(len(options))]) for options in (mine, FORMS, WHEN))
        rows[form.format(thing=thing, when=when)] = thing
    return list(rows.items())
