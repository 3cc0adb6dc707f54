"""Use remask in gepa 0.1.4: reflections by a diffusion model, paired acceptance, a hard budget.

gepa asks a reflection model for a whole new text. `DiffusionReflection` masks spans of the parent
and denoises them instead, for all jobs of an iteration at once. The same object is a
`reflection_strategy`, a `custom_candidate_proposer` and an `instruction_proposer` of DSPy. gepa
itself evaluates and selects candidates; this module does not call the target.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remask.api.arguments import Search
from remask.api.build_models import make_denoiser, make_price
from remask.api.build_proposer import make_proposer
from remask.errors import BackendError, ConfigError
from remask.ids import seed_for
from remask.integrations.multi_prompt import AnyDenoiser, resolve_settings
from remask.integrations.records import Reader, read_record
from remask.ports import Proposal, Proposer, Remote
from remask.prompt import Prompt
from remask.runs.budget import Limits
from remask.runs.meter import Ledger, Meter
from remask.runs.store import MemoryStore
from remask.stats import accepts
from remask.types import Trace

try:
    from gepa.proposer.reflective_mutation.reflection_lm import ReflectionProposal
except ImportError as error:
    raise BackendError(
        f"remask inside gepa needs gepa 0.1.4 or newer ({error}); install with "
        "pip install 'remask[gepa,local]'"
    ) from None

if TYPE_CHECKING:
    from gepa.core.state import GEPAState
    from gepa.proposer.base import CandidateProposal

Records = Mapping[str, Sequence[Mapping[str, Any]]]  # component -> its records
Job = tuple[dict[str, str], Records, list[str]]  # candidate, its records, components to update

MAX_DRAWS = 4  # of a batch, until every job has a new text that the guard allows


class DiffusionReflection:
    """Proposes texts of components by masked denoising, given the reflective records of gepa.

    The jobs of one component with the same parent are one batch of the diffusion model, and share
    their records. A job gets no new text where the guard forbids all its candidates or all were
    proposed before; gepa then spends no target call on it.

    seed_candidate: the texts that the guard compares with, in which [[keep]] and [[/keep]] may mark
    what must stay; pass `reflection.seed_candidate`, which has no marks, to gepa. Without it, the
    first text of each component is used. denoiser, search: as for `remask.optimize`. labels,
    answer: texts that a prompt may contain although the records do. read: converts a record to a
    trace.

    Deterministic in its arguments and the sequence of calls. Raises ConfigError and BackendError.
    """

    def __init__(
        self,
        seed_candidate: Mapping[str, str] | None = None,
        *,
        denoiser: AnyDenoiser = "builtin",
        seed: int = 0,
        labels: Sequence[str] = (),
        answer: str = "{label}",
        read: Reader = read_record,
        search: Search | None = None,
    ) -> None:
        self._config, given = resolve_settings(denoiser, search, answer)
        self._denoiser = make_denoiser(self._config.denoiser, given)
        self._ledger = Ledger(MemoryStore(), Limits(), make_price(self._config.denoiser))
        if isinstance(self._denoiser, Remote):
            target = Meter(self._denoiser.target, self._ledger, self._denoiser.max_output)
            self._denoiser = self._denoiser.with_target(target)
        self._seed, self._labels, self._read = seed, tuple(labels), read
        texts = seed_candidate or {}
        self._baselines = {name: Prompt.parse(text) for name, text in texts.items()}
        self._proposers: dict[str, Proposer] = {}
        self._seen: defaultdict[str, set[str]] = defaultdict(set)  # texts, by component
        self._calls = 0

    @property
    def seed_candidate(self) -> dict[str, str]:
        """Return the texts to start from, without marks."""
        return {name: prompt.text for name, prompt in self._baselines.items()}

    @property
    def total_cost(self) -> float:
        """Return the US dollars spent on a denoiser behind an API so far; 0 for local models.

        Raises AttributeError where its prices are not given, so that gepa rejects
        `max_reflection_cost`, which it could otherwise never reach.
        """
        if isinstance(self._denoiser, Remote) and self._ledger.price is None:
            raise AttributeError("total_cost: denoiser.input_price and denoiser.output_price are not given")
        return self._ledger.store.get_spend().usd

    def __call__(
        self, candidate: dict[str, str], reflective_dataset: Records, components_to_update: list[str]
    ) -> dict[str, str]:
        """Return new texts of the components, as gepa and DSPy call it."""
        return self.reflect(candidate, reflective_dataset, components_to_update)[0].new_texts

    def reflect(
        self, candidate: dict[str, str], reflective_dataset: Records, components_to_update: list[str]
    ) -> "tuple[ReflectionProposal, DiffusionReflection]":
        """Return the proposal for one job."""
        return self.reflect_many([(candidate, reflective_dataset, components_to_update)])[0]

    def reflect_many(self, jobs: list[Job]) -> "list[tuple[ReflectionProposal, DiffusionReflection]]":
        """Return a proposal for each job, in order.

        Its metadata contain the masker, the edits and the reasons of refused texts.
        """
        self._calls += 1
        made = [ReflectionProposal(new_texts={}) for _ in jobs]
        for name, parent, members in self._group_jobs(jobs):
            traces = {t.id: t for i in members for t in map(self._read, jobs[i][1][name])}
            found, refused = self._draw_candidates(name, parent, tuple(traces.values()), len(members))
            for i in members:
                made[i].metadata[f"remask:refused:{name}"] = refused
            for i, proposal in zip(members, found, strict=False):
                made[i].new_texts[name] = proposal.prompt.text
                made[i].metadata[f"remask:{name}"] = {
                    "masker": proposal.masker,
                    "edits": [list(edit) for edit in proposal.edits],
                    "logp": proposal.logp,
                }
        return [(proposal, self) for proposal in made]

    def _group_jobs(self, jobs: list[Job]) -> list[tuple[str, Prompt, list[int]]]:
        """Group jobs by component and parent. Jobs without records are left out."""
        members: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for i, (candidate, records, names) in enumerate(jobs):
            for name in names:
                if records.get(name):
                    members[name, candidate[name]].append(i)
        batches = []
        for (name, text), indices in members.items():
            baseline = self._baselines.setdefault(name, Prompt(text))
            self._seen[name] |= {text, baseline.text}
            parent = restore_kept(text, baseline, name)
            if parent.editable:
                batches.append((name, parent, indices))
        return batches

    def _draw_candidates(
        self, name: str, parent: Prompt, traces: Sequence[Trace], wanted: int
    ) -> tuple[list[Proposal], list[str]]:
        """Return up to `wanted` new candidates, and the reasons why others were refused."""
        if name not in self._proposers:
            self._proposers[name] = make_proposer(
                self._config, self._baselines[name], self._denoiser, self._labels
            )
        found: list[Proposal] = []
        refused: list[str] = []
        for draw in range(MAX_DRAWS):
            missing = wanted - len(found)
            if not missing:
                break
            seed = seed_for(self._seed, self._calls, name, parent.text, draw)
            for proposal in self._proposers[name].propose(parent, traces, missing, seed):
                if proposal.violation:
                    refused.append(proposal.violation)
                elif proposal.prompt.text not in self._seen[name]:
                    self._seen[name].add(proposal.prompt.text)
                    found.append(proposal)
        return found, refused


def restore_kept(text: str, baseline: Prompt, name: str) -> Prompt:
    """Return `text` with the kept spans of the baseline, which are found in their order.

    Raises ConfigError where one is missing, since then another tool has changed the text.
    """
    kept, at = [], 0
    for start, stop in baseline.kept:
        wanted = baseline.text[start:stop]
        found = text.find(wanted, at)
        if found < 0:
            raise ConfigError(
                f"the text of {name!r} has lost its [[keep]] region {wanted[:60]!r}; let only "
                "remask edit that component"
            )
        at = found + len(wanted)
        kept.append((found, at))
    return Prompt(text, tuple(kept))


@dataclass(frozen=True, slots=True)
class PairedAcceptance:
    """An `acceptance_criterion` for gepa: the sum of paired differences d must be above 0.

    cautious: it must also be at least sqrt(Σd²), about one standard deviation of the sum where the
    true difference is 0. A rounding error is no improvement. This is a rule of the search, not a
    statistical test.
    """

    cautious: bool = False

    def should_accept(self, proposal: "CandidateProposal[Any]", state: "GEPAState[Any, Any]"
    ) -> bool:  # fmt: skip
        return accepts(_pair_differences(proposal), margin=float(self.cautious))

    def reject_reason(self, proposal: "CandidateProposal[Any]", state: "GEPAState[Any, Any]"
    ) -> str:  # fmt: skip
        found = _pair_differences(proposal)
        how = "clearly " if self.cautious else ""
        return f"not {how}better: {sum(found):+.3g} points over {len(found)} rows"


def _pair_differences(proposal: "CandidateProposal[Any]") -> list[float]:
    before = proposal.subsample_scores_before or []
    after = proposal.subsample_scores_after or []
    return [b - a for a, b in zip(before, after, strict=True)]


class HardBudget:
    """A stopper for gepa: no iteration begins that could pass `max_metric_calls`.

    gepa checks its own limit only after passing it. This stopper reserves the maximum cost of an
    iteration: `proposals` parents and children on a minibatch each, and `accepted` children
    (default: all) on the validation rows, whose number it reads from gepa. `merge`: as use_merge of
    gepa. Pass the same values as to gepa. Where an iteration costs more, that cost is reserved from
    then on. gepa validates the seed candidate before it asks any stopper.
    """

    def __init__(
        self,
        max_metric_calls: int,
        *,
        minibatch: int = 3,
        proposals: int = 1,
        accepted: int | None = None,
        merge: bool = False,
    ) -> None:
        if max_metric_calls < 1 or minibatch < 1 or proposals < 1:
            raise ConfigError("max_metric_calls, minibatch and proposals must be at least 1")
        self.max_metric_calls = max_metric_calls  # gepa's progress bar reads it
        self._rows = 2 * proposals * minibatch
        self._validated = proposals if accepted is None else min(accepted, proposals)
        self._merged = MERGE_ROWS if merge else 0
        self._last: int | None = None
        self._max_iteration_calls = 0

    def __call__(self, gepa_state: "GEPAState[Any, Any]") -> bool:
        used = gepa_state.total_num_evals
        if self._last is not None:
            self._max_iteration_calls = max(self._max_iteration_calls, used - self._last)
        self._last = used
        validation = len(gepa_state.prog_candidate_val_subscores[0])
        mutation = self._rows + self._validated * validation
        merge = self._merged + validation if self._merged else 0
        return used + max(mutation, merge, self._max_iteration_calls) > self.max_metric_calls


MERGE_ROWS = 5  # validation rows on which gepa compares a merged candidate with its parents
