"""What is in the files: counts, ratings and their scales, system prompts, and what was rejected.

Holds counts and a bounded number of texts, however long the files are. Knows records, not how they
are shown.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from remask.data.prompt_templates import Template, templates
from remask.data.ratings import Seen
from remask.data.trace_record import Record, RejectedRecord

MAX_PROMPTS = 2000  # distinct system prompts that are held
MAX_REASONS = 200
FIRST = 5  # rejects that are shown in full


@dataclass(slots=True)
class Survey:
    """Everything `remask traces inspect` says."""

    formats: Counter[str] = field(default_factory=Counter)
    with_system: int = 0
    with_feedback: int = 0
    with_desired: int = 0
    turns: int = 0
    ratings: dict[str, Seen] = field(default_factory=dict)
    prompts: Counter[str] = field(default_factory=Counter)
    declared: Counter[str] = field(default_factory=Counter)  # templates that the format names
    first: list[RejectedRecord] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    rejected: int = 0

    @property
    def records(self) -> int:
        return self.formats.total()

    def add(self, item: Record | RejectedRecord) -> None:
        if isinstance(item, RejectedRecord):
            self._reject(item)
            return
        self.formats[item.source.format] += 1
        self.turns += len(item.turns)
        self.with_system += item.system is not None
        self.with_feedback += bool(item.ratings)
        self.with_desired += item.desired is not None or any(r.correction for r in item.ratings)
        for rating in item.ratings:
            self.ratings.setdefault(rating.name, Seen()).add(rating)
        if item.template:
            self.declared[item.template] += 1
        elif item.system and (item.system in self.prompts or len(self.prompts) < MAX_PROMPTS):
            self.prompts[item.system] += 1

    def systems(self) -> list[Template]:
        """The system prompts as templates, the most frequent first."""
        named = [Template((text,), count, 1) for text, count in self.declared.items()]
        return sorted([*named, *templates(self.prompts)], key=lambda template: -template.count)

    def _reject(self, item: RejectedRecord) -> None:
        self.rejected += 1
        if len(self.first) < FIRST:
            self.first.append(item)
        reason = item.reason if len(self.reasons) < MAX_REASONS else "other reasons"
        self.reasons[reason] += 1


def survey(items: Iterable[Record | RejectedRecord]) -> Survey:
    """One look at all items."""
    found = Survey()
    for item in items:
        found.add(item)
    return found
