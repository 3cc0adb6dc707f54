"""Summarise trace files: counts, ratings and their scales, system prompts, rejected values.

Memory does not grow with the files: only counts and a limited number of texts are kept.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from remask.data.prompt_templates import PromptTemplate, find_prompt_templates
from remask.data.ratings import RatingStats, merge_counts
from remask.data.trace_record import Record, RejectedRecord
from remask.sanitize import one_line

MAX_PROMPTS = 2000  # distinct system prompts that are kept
MAX_REASONS = 200  # distinct reasons that are counted
OTHER_REASONS = "other reasons"
MAX_SHOWN_UNUSED = 20
MAX_UNUSED = 200  # distinct unused columns that are counted
MAX_SHOWN_REJECTS = 5  # rejected values that are kept in full


@dataclass(slots=True)
class Overview:
    """What `remask traces inspect` prints."""

    formats: Counter[str] = field(default_factory=Counter)
    with_system: int = 0
    with_feedback: int = 0
    with_desired: int = 0
    turns: int = 0
    ratings: dict[str, RatingStats] = field(default_factory=dict)
    prompts: Counter[str] = field(default_factory=Counter)
    templates: Counter[str] = field(default_factory=Counter)  # prompt templates in the records
    unused: Counter[str] = field(default_factory=Counter)  # columns that were not used
    first_rejects: list[RejectedRecord] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    rejected: int = 0

    @property
    def records(self) -> int:
        return self.formats.total()

    @property
    def items(self) -> int:
        """Records and rejected values."""
        return self.records + self.rejected

    def add(self, item: Record | RejectedRecord) -> None:
        if isinstance(item, RejectedRecord):
            self._reject(item)
            return
        self.formats[item.source.format] += 1
        self.turns += len(item.turns)
        self.with_system += item.system is not None
        self.with_feedback += bool(item.ratings)
        self.with_desired += item.desired is not None or any(r.correction for r in item.ratings)
        merge_counts(self.unused, dict.fromkeys(item.unused, 1), MAX_UNUSED)
        for rating in item.ratings:
            self.ratings.setdefault(rating.name, RatingStats()).add(rating)
        if item.template:
            self.templates[item.template] += 1
        elif item.system:
            merge_counts(self.prompts, {item.system: 1}, MAX_PROMPTS)

    def merge(self, later: "Overview") -> None:
        """Count what was counted in items after these, as if `add` had got them all in order.

        Beyond the limits of what is kept, the result depends on where the items were cut.
        """
        for counted in ("with_system", "with_feedback", "with_desired", "turns", "rejected"):
            setattr(self, counted, getattr(self, counted) + getattr(later, counted))
        self.formats.update(later.formats)
        self.templates.update(later.templates)
        merge_counts(self.unused, later.unused, MAX_UNUSED)
        merge_counts(self.prompts, later.prompts, MAX_PROMPTS)
        for name, stats in later.ratings.items():
            self.ratings.setdefault(name, RatingStats()).merge(stats)
        self.first_rejects += later.first_rejects[: MAX_SHOWN_REJECTS - len(self.first_rejects)]
        for reason, count in later.reasons.items():
            self.reasons[reason if len(self.reasons) < MAX_REASONS else OTHER_REASONS] += count

    def find_templates(self) -> list[PromptTemplate]:
        """Return the system prompts as templates, the most frequent first."""
        named = [PromptTemplate((text,), count, 1) for text, count in self.templates.items()]
        found = [*named, *find_prompt_templates(self.prompts)]
        return sorted(found, key=lambda template: -template.count)

    def describe_unused(self) -> str:
        """Return the unused columns and how many records have content in each; "" if there are none."""
        return ", ".join(
            f"{one_line(name, 40)} ({n})" for name, n in self.unused.most_common(MAX_SHOWN_UNUSED)
        )

    def _reject(self, item: RejectedRecord) -> None:
        self.rejected += 1
        if len(self.first_rejects) < MAX_SHOWN_REJECTS:
            self.first_rejects.append(item)
        reason = item.reason if len(self.reasons) < MAX_REASONS else OTHER_REASONS
        self.reasons[reason] += 1


def build_overview(items: Iterable[Record | RejectedRecord]) -> Overview:
    """Count all items in one pass."""
    found = Overview()
    for item in items:
        found.add(item)
    return found
