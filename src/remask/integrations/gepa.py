"""Use remask in gepa 0.1.4: reflections by a diffusion model, paired acceptance, a hard budget.

gepa asks a reflection model for a whole new text. `DiffusionReflection` masks spans of the parent
and denoises them instead, for all jobs of an iteration at once. The same object is a
`reflection_strategy`, a `custom_candidate_proposer` and an `instruction_proposer` of DSPy. gepa
itself evaluates and selects candidates; this module does not call the target.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from remask.api.arguments import Search
from remask.api.build_models import make_denoiser, make_price
from remask.api.build_proposer import make_proposer
from remask.errors import BackendError, ConfigError
from remask.ids import seed_for
from remask.integrations.multi_prompt import AnyDenoiser, resolve_settings
from remask.integrations.records import Reader, read_record
from remask.ports import Proposal, Proposer, Remote
from remask.prompt import Prompt, join_components
from remask.propose.components import ComponentProposer, divide_edits
from remask.runs.budget import Limits
from remask.runs.ledger import Ledger
from remask.runs.meter import Meter
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

    The jobs of the same texts are one batch of the diffusion model, and share their records. Of a job
    for several components (`module_selector="all"`) one or two are edited: those that the feedback
    names, as in a search of remask. A job gets no new text where the guard forbids all its
    candidates or all were proposed before; gepa then spends no target call on it.

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
        for parent, members in self._group_jobs(jobs):
            traces = self._read_traces([jobs[i][1] for i in members], tuple(parent.components))
            found, refused = self._draw_candidates(parent, traces, len(members))
            for i, name in product(members, parent.components):
                made[i].metadata[f"remask:refused:{name}"] = refused
            for i, proposal in zip(members, found, strict=False):
                for name, edits in divide_edits(proposal).items():
                    made[i].new_texts[name] = proposal.prompt.components[name].text
                    made[i].metadata[f"remask:{name}"] = {
                        "masker": proposal.masker,
                        "edits": [list(edit) for edit in edits],
                        "logp": proposal.logp,
                    }
        return [(proposal, self) for proposal in made]

    def _group_jobs(self, jobs: list[Job]) -> list[tuple[Prompt, list[int]]]:
        """Group jobs by the texts of their components. Components without records are left out."""
        members: defaultdict[str, list[int]] = defaultdict(list)
        for i, (candidate, records, names) in enumerate(jobs):
            parents = {name: self._restore(name, candidate[name]) for name in names if records.get(name)}
            texts = {name: parent.to_source() for name, parent in parents.items() if parent.editable}
            if texts:
                members[join_components(texts)].append(i)
        return [(Prompt.parse(source), indices) for source, indices in members.items()]

    def _restore(self, name: str, text: str) -> Prompt:
        """Return the text of a component with the kept spans of its baseline."""
        baseline = self._baselines.setdefault(name, Prompt(text))
        self._seen[name] |= {text, baseline.text}
        if name not in self._proposers:
            self._proposers[name] = make_proposer(self._config, baseline, self._denoiser, self._labels)
        return restore_kept(text, baseline, name)

    def _read_traces(self, jobs: Sequence[Records], names: Sequence[str]) -> tuple[Trace, ...]:
        """Read the records of some components. A record that several have is one trace of them all."""
        parts: defaultdict[str, dict[str, Trace]] = defaultdict(dict)
        for records, name in product(jobs, names):
            for trace in map(self._read, records.get(name, ())):
                parts[trace.id][name] = trace
        return tuple(replace(next(iter(own.values())), parts=own) for own in parts.values())

    def _draw_candidates(
        self, parent: Prompt, traces: Sequence[Trace], wanted: int
    ) -> tuple[list[Proposal], list[str]]:
        """Return up to `wanted` new candidates, and the reasons why others were refused."""
        proposer = ComponentProposer({name: self._proposers[name] for name in parent.components})
        found: list[Proposal] = []
        refused: list[str] = []
        for draw in range(MAX_DRAWS):
            missing = wanted - len(found)
            if not missing:
                break
            seed = seed_for(self._seed, self._calls, parent.text, draw)
            for proposal in proposer.propose(parent, traces, missing, seed):
                texts = {name: proposal.prompt.components[name].text for name in proposal.components}
                if proposal.violation:
                    refused.append(proposal.violation)
                elif not any(text in self._seen[name] for name, text in texts.items()):
                    for name, text in texts.items():
                        self._seen[name].add(text)
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
