"""The acceptance rules that are compared: the shipped functions with other margins.

A rule gets two lists of differences on the validation rows: the winner of a round against the
incumbent, and against the seed prompt.
"""

from functools import partial

from remask.search.plan import MAX_MARGIN
from remask.stats import MIN_SEED_MARGIN, Rule, improves

SHIPPED = f"ahead of the seed prompt by {MIN_SEED_MARGIN:g} to {MAX_MARGIN:g}"
RULES: dict[str, Rule | None] = {  # None: the rule of the plan
    "any gain": partial(improves, seed_margin=0),
    **{f"a gain of {c:g}": partial(improves, incumbent_margin=c, seed_margin=0) for c in (0.5, 1)},
    **{f"ahead of the seed prompt by {c:g}": partial(improves, seed_margin=c) for c in (0.5, 1)},
    SHIPPED: None,
}
