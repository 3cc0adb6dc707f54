"""The settings of a run: read once, unknown keys are errors, saved whole in the run directory.

`remask.toml`, command-line flags and keyword arguments of the library all become one `Config`.
Relative paths in a file are relative to that file. Keys never hold secrets: an API key is named by
the environment variable that holds it.

The text below a key is its documentation: docs/reference/configuration.md and the JSON schema of
the package are made from it by docs/generate.py.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from remask.errors import ConfigError, describe_problems
from remask.files import read_toml_value

MaskerName = Literal["rewrite", "span", "sentence", "insert", "attribution", "anchor", "library", "delete"]
OrderName = Literal["confidence", "entropy", "margin", "random", "leftmost"]
LockName = Literal["text", "numbers", "none"]
CommitName = Literal["steps", "threshold", "factor", "entropy_bound"]
# Drawn in turn in the first round. Insertions are better than their parent most often; `rewrite`
# never was, in place of one sentence (docs/log.md, single edits and sources of candidates).
MASKERS: tuple[MaskerName, ...] = (
    *("insert", "anchor", "span", "insert", "anchor", "sentence"),
    *("insert", "library", "attribution", "insert", "anchor", "delete"),
)
DEFAULT_DEMOS = 8


QUERIES = 80  # messages that a target is asked for where nothing else is said
# Of the target, where a task of Inspect is run: the task says how its models answer, and answers of
# agents are long.
TASK_TARGET = {"temperature": None, "max_tokens": None, "timeout": 600.0}


def _role(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class Section(BaseModel):
    # No namespace is protected: pydantic before 2.10 warns of every field called model_….
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        protected_namespaces=(),
        allow_inf_nan=False,  # of all numbers
    )

    @model_validator(mode="before")
    @classmethod
    def _read_values(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        return {k: read_toml_value(v, fields[k].annotation) if k in fields else v for k, v in values.items()}


class DataConfig(Section):
    """The rows: where they are and what their columns mean."""

    path: str = ""
    """One file with all rows: JSONL, JSON, CSV, TSV (each also gzipped), or a promptfooconfig.yaml.
    Leave it out where each split has a file."""
    train: str = ""
    """File with the train rows."""
    validation: str = ""
    """File with the validation rows."""
    test: str = ""
    """File with the test rows."""
    input: str = "{input}"
    """The user message: the name of a column, or a template over columns, such as
    `"{title}: {body}"`."""
    expected: str = "label"
    """Column of the right answer. `""`: the rows have none."""
    split: str = ""
    """Column that says `train`, `validation` or `test`. `""`: rows of one file are dealt to the
    splits by a hash of their content."""
    redact: bool = True
    """Replace secrets and personal details in what the denoiser reads and in what is stored. The
    target and the metric get the rows as they are."""
    group: str = ""
    """Column that names the guard set of a row, for `search.max_drop`."""
    role: Literal["system", "user"] = "system"
    """The message that the prompt is. With `user` the prompt holds the row's columns as variables
    and no other message is sent."""
    skip_invalid: bool = False
    """Whether rows that cannot be used are left out. They are counted in a warning."""
    fractions: tuple[float, float, float] = (0.25, 0.25, 0.5)
    """Shares of train, validation and test rows where rows are dealt by hash."""
    queries: Annotated[int, Field(ge=12, le=1000)] | None = None
    """Messages that the target is asked to write where there is no data. Needs a metric without
    right answers, such as a judge."""


class EndpointConfig(Section):
    """How an API is reached, and what it costs."""

    base_url: str = ""
    """Base URL of the server, such as `http://localhost:8000/v1`. `""`: the provider's own; of OpenAI
    the variable `OPENAI_BASE_URL` wins."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    """Calls in flight at a time, at most; fewer where the server refuses more."""
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    """Requests in any minute, at most. None: learned from what the server refuses."""
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = None
    """Input and output tokens in any minute, at most; those of a call in flight are estimated. None:
    learned."""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds that one attempt may take."""
    retries: Annotated[int, Field(ge=0, le=20)] = 4
    """Further attempts after the statuses 408, 409, 429 and 5xx and after a timeout. Each attempt
    that may be billed counts as a call: not a 429 or 503, and not where no connection was made."""
    extra: dict[str, Any] = {}
    """Further fields of each request, such as `{reasoning_effort = "low"}`, `response_format` and
    `tools`, which may also be the place of a list of tools: `tools = "tools.json"`. With `inspect:`
    also settings as Inspect names them."""
    model_args: dict[str, Any] = {}
    """Arguments of the provider of `inspect:PROVIDER/MODEL`, as `inspect eval -M` takes them, such as
    `{region_name = "eu-central-1"}` of `bedrock`."""
    headers: dict[str, str] = {}
    """Further headers of each request. A value `$NAME` stands for the environment variable NAME, so
    that no secret is written to the run."""
    input_price: Annotated[float, Field(ge=0)] | None = None
    """US dollars per million input tokens. Needed for `budget.usd`."""
    output_price: Annotated[float, Field(ge=0)] | None = None
    """US dollars per million output tokens. Needed for `budget.usd`."""

    @property
    def reach(self) -> dict[str, Any]:
        """How often and how long an API is asked, as the targets' constructors take it."""
        rates = {"requests_per_minute", "tokens_per_minute"}
        return self.model_dump(include={"concurrency", *rates, "timeout", "retries", "extra", "headers"})


class TargetConfig(EndpointConfig):
    """The frozen model whose prompt is optimised."""

    model: str = "builtin"
    """`builtin`, `local:FOLDER`, `local:FILE.gguf` or `local:HUB_ID` (with `revision`) for a Llama,
    Qwen2 or Qwen3 model on this machine, `openai:MODEL` for any OpenAI-compatible endpoint,
    `inspect:PROVIDER/MODEL` for any provider that Inspect knows, or `FILE.py:FUNCTION` for a function
    `messages -> str`. Python also takes a function."""
    revision: str = ""
    """Full commit id of a `local:HUB_ID`, 40 characters. `local:HUB_ID@REVISION` says the same."""
    device: str = ""
    """Device of a `local:` model, such as `cuda:0`. `""`: CUDA, else MPS, else the processor."""
    dtype: Literal["", "bfloat16", "float32"] = ""
    """Numbers of a `local:` model. `""`: the faster of the two on that device."""
    choose: bool = True
    """Whether a model on this machine chooses the most probable label, for the metric `label`. With
    `false` it answers in its own words, as a model behind an endpoint does."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the API key. A server on this machine needs none. With `inspect:`
    the default stands for the provider's own variable."""
    temperature: Annotated[float, Field(ge=0, le=5)] | None = 0.0
    """Sampling temperature. `"omit"`: the field is not sent."""
    max_tokens: Annotated[int, Field(ge=1)] | None = 256
    """Most tokens of one answer. `"omit"`: the field is not sent; tokens and dollars can then not
    be limited."""


class RoleConfig(Section):
    """Another model of a task of Inspect, such as the one that plays the user."""

    model: str
    """The model as Inspect names it: `PROVIDER/MODEL`."""
    base_url: str = ""
    """Base URL of its server. `""`: that of the target where the provider is the same."""
    input_price: Annotated[float, Field(ge=0)] | None = None
    """US dollars per million input tokens. Without it the target's price counts where the model is
    the same."""
    output_price: Annotated[float, Field(ge=0)] | None = None
    """US dollars per million output tokens."""


class TaskConfig(Section):
    """A task of Inspect in place of rows and metric (docs/how-to/agents.md)."""

    name: str = ""
    """`PACKAGE/TASK` or `FILE.py@TASK`. `""`: the run uses the rows of `[data]`."""
    args: dict[str, Any] = {}
    """Arguments of the task, as `inspect eval -T` takes them."""
    model_args: dict[str, Any] = {}
    """As `target.model_args`."""
    roles: dict[str, Annotated[RoleConfig, BeforeValidator(_role)]] = {}
    """The task's other models by role: a section `[task.roles.NAME]`, or `NAME = "PROVIDER/MODEL"`
    for short."""
    scorer: str = ""
    """The score that counts: `NAME` or `NAME/KEY`. `""`: the first one."""
    logs: str = ""
    """Folder for Inspect's logs. `""`: `inspect/` in the run directory."""
    calls_per_sample: Annotated[int, Field(ge=1)] = 20
    """Calls that one sample is expected to take, until some samples have run."""


class MetricConfig(Section):
    """What "better" means: how an answer is scored, from 0 to 1."""

    name: str = "label"
    """`label`, `exact`, `contains`, `f1`, `json`, `number`, `tool_call`, `judge`, `promptfoo`, or
    `FILE.py:FUNCTION` for a function `(example, response) -> number from 0 to 1`. Python also takes
    a function."""
    answer: str = "{label}"
    """How the target would say a label, such as `"This message is about {label}."`. Used by the
    metric `label`."""
    labels: tuple[str, ...] = ()
    """Labels that are allowed. Empty: those in the data."""
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    """How often each row is asked; the mean counts. For endpoints that are not deterministic."""
    timeout: Annotated[float, Field(gt=0)] | None = 120.0
    """Seconds that a function may take for one row. A row that takes longer has no score. `"none"`:
    no limit, and the function runs in the thread of the search."""
    judge: TargetConfig | None = None
    """The model that scores answers; it takes the keys of `[target]`."""
    rubric: str = ""
    """What a good answer is, for the judge."""
    scale: tuple[float, float] = (0, 10)
    """The judge's worst and best score. A rubric that speaks of 0 to 1 needs `[0, 1]`."""

    @field_validator("scale")
    @classmethod
    def _require_order(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not scale[0] < scale[1]:  # also false for NaN
            raise ValueError(f"the worst score {scale[0]:g} must be below the best score {scale[1]:g}")
        return scale


class ObjectiveConfig(Section):
    """What counts beside the score; one `[[objectives]]` for each (docs/how-to/objectives.md)."""

    name: str = ""
    """`prompt_tokens`, `output_tokens`, `usd` or `latency` (seconds), of one answer; of these less is
    better. With `metric` any name. Default: that of the metric."""
    metric: Annotated[MetricConfig, BeforeValidator(_named)] | None = None
    """A second metric, of which more is better: a name as in `metric.name`, or a table with the keys
    of `[metric]`, as a judge needs it."""

    @property
    def title(self) -> str:
        """The name, or that of the metric without its file or module."""
        return (self.name or (self.metric.name if self.metric else "")).rpartition(":")[2].rpartition(".")[2]


class DenoiserConfig(EndpointConfig):
    """The diffusion language model that writes the edits (docs/reference/sampling.md).

    An API uses only the keys of an endpoint, `temperature`, `max_tokens` and `send_seed`.
    """

    model: str = "builtin"
    """`builtin`, `builtin:ADAPTER`, `local:FOLDER`, `local:HUB_ID` (with `revision`), `mercury`,
    `mercury:MODEL`, or a chat model: `chat:MODEL` for any OpenAI-compatible endpoint,
    `inspect:PROVIDER/MODEL` for any provider that Inspect knows. Python also takes an object."""
    revision: str = ""
    """Full commit id of a `local:HUB_ID`, 40 characters. `local:HUB_ID@REVISION` says the same."""
    adapter: str = ""
    """Adapter that `remask adapt` made for a left-to-right model named by `local:`."""
    family: str = ""
    """Family of a `local:` model whose files do not tell it, such as `dream`."""
    device: str = ""
    """Device of a `local:` model, such as `cuda:0`. `""`: CUDA, else MPS, else the processor."""
    dtype: Literal["", "bfloat16", "float32"] = ""
    """Numbers of a `local:` model. `""`: the faster of the two on that device."""
    steps: Annotated[int, Field(ge=1, le=256)] | None = None
    """Denoising steps of a window, at most. None: one for each mask, and at most 8 with the built-in
    denoiser and those that `remask adapt` makes, 24 with others."""
    temperature: Annotated[float, Field(ge=0, le=5)] | None = None
    """Sampling temperature of tokens. None: 0.3 for the built-in model and for adapters, 0.7 for
    other local models, an API's own default."""
    position_temperature: Annotated[float, Field(ge=0, le=5)] = 0.3
    """Noise in the order in which masks are filled. 0: no noise."""
    order: OrderName = "confidence"
    """Which masks are filled first."""
    commit: CommitName = "threshold"
    """How many masks a step fills beside its quota."""
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """Probability from which a token is kept, for `commit = "threshold"`. None: 0.9, for LLaDA2.0
    0.95, for LLaDA2.1 0.7."""
    factor: Annotated[float, Field(ge=0)] = 1.0
    """Factor of `commit = "factor"`."""
    entropy_bound: Annotated[float, Field(ge=0)] = 0.1
    """Bound of `commit = "entropy_bound"`, in nats."""
    block: Annotated[int, Field(ge=1)] | None = None
    """Tokens of a block that is finished before the next begins. None: the whole canvas is one."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Tokens are drawn from the fewest that hold this probability together. 1: from all."""
    guidance: Annotated[float, Field(ge=0, le=10)] = 0.0
    """How much more the text follows the traces. 0: not at all; above 0 a step costs twice."""
    cache: Literal["approximate", "exact"] = "approximate"
    """Whether models that read in both directions reuse what they read of the traces between two
    refreshes."""
    refresh: Annotated[int, Field(ge=1)] = 16
    """Denoising steps between two exact readings of the traces, for `cache = "approximate"`."""
    api_key_env: str = ""
    """Environment variable that holds the API key. `""`: `INCEPTION_API_KEY` for `mercury`,
    `OPENAI_API_KEY` for `chat`, the provider's own for `inspect`."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """Most tokens of one answer of a chat model, reasoning included."""
    send_seed: bool = True
    """Send the field `seed` to an API. Turn it off for a server that refuses the field."""


class SearchConfig(Section):
    """How candidates are written and accepted."""

    maskers: Annotated[tuple[MaskerName, ...], Field(min_length=1)] = MASKERS
    """Where the prompt is edited; the maskers take turns. Default of `remask refine`:
    attribution, span, insert, sentence."""
    candidates: Annotated[int, Field(ge=1, le=256)] | None = None
    """Candidates of a round. None: as the budget allows, 6 to 24; 8 in `remask refine`."""
    traces: Annotated[int, Field(ge=1, le=64)] = 8
    """Traces that the denoiser reads at a time, at most."""
    context_tokens: Annotated[int, Field(ge=32, le=4000)] = 400
    """Tokens of traces that the denoiser reads at a time, at most. Default of `remask refine`:
    1000."""
    max_growth: Annotated[float, Field(ge=1)] = 3.0
    """Words of a candidate at most, in lengths of the seed prompt; 60 words are always allowed."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of a candidate at most, as the denoiser counts. None: no limit."""
    demos: Annotated[int, Field(ge=0, le=32)] | None = None
    """Train rows that may be shown at the end of the prompt as examples, at most. None: 8 where
    the train rows have right answers and the prompt is a system message, else 0."""
    cautious: bool = False
    """Accept an edit only where it is further ahead (docs/background/acceptance.md)."""
    prefer: str = ""
    """The objective that chooses among prompts whose score is about the same: `shortest`
    (`prompt_tokens`), `cheapest` (`usd`), `fastest` (`latency`), or a name of `[[objectives]]`."""
    within: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Points of score, of 100, that a prompt may lose for `prefer`."""
    goal: Literal["score", "preferred"] = "score"
    """What an edit must improve: the score, or where `prefer` is set that; or only that, as
    `remask shorten` has it."""
    max_drop: dict[str, Annotated[float, Field(strict=True, ge=0, lt=100)]] = {}
    """Guard sets, such as `{safety = 0}`: rows that are not in the score, and the points of 100 that
    they may lose. Their rows name them in the column `data.group`."""


class RefineConfig(Section):
    """Conversations in place of rows, for `remask refine` (docs/how-to/conversations.md)."""

    traces: Annotated[tuple[str, ...], Field(min_length=1)]
    """Files of conversations; also folders of such files, and patterns such as `logs/*.jsonl`."""
    columns: tuple[str, ...] = ()
    """`FIELD=COLUMN`, as `--map` takes it."""
    scales: tuple[str, ...] = ()
    """`NAME=WORST..BEST`, as `--scale` takes it."""
    redact: bool = True
    """Replace secrets and personal details before anything is read."""
    lock: LockName = "numbers"
    """What of the prompt may not change: `text` (sentences are only added), `numbers` or `none`."""
    iterations: Annotated[int, Field(ge=1)] = 8
    """Number of iterations."""
    verify: bool = False
    """Compare both prompts on sealed conversations, with the target."""


class ComponentConfig(Section):
    """A component of the prompt: where its text is (docs/how-to/components.md)."""

    place: str
    """`FILE` or `FILE#/POINTER`, see docs/reference/places.md."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of a candidate of this component at most. None: `search.max_tokens`."""


def _place(value: Any) -> Any:
    """A place for short, in the place of a section."""
    return {"place": value} if isinstance(value, str) else value


class BudgetConfig(Section):
    """Limits that are never passed, the sealed test included."""

    calls: Annotated[int, Field(ge=1)] | None = 2000
    """Calls: attempts that may be billed, of target, judge and a denoiser behind an API."""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """Input and output tokens together."""
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Minutes of computing and waiting."""
    usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """US dollars. Needs the prices of every model that is asked."""


class WatchConfig(Section):
    """New conversations every night, for `remask watch` (docs/how-to/nightly.md).

    `[refine]` says how they are read: its keys columns, scales and redact.
    """

    traces: tuple[str, ...] = ()
    """Where to read: files, folders and patterns, `langfuse:URL` for a server of Langfuse, and
    `mlflow:URI` for a tracking server of MLflow. Empty: those of `[refine]`."""
    experiment: str = ""
    """Experiment of MLflow whose traces are read. `""`: all of the server."""
    late_days: Annotated[float, Field(ge=0, le=90)] = 3.0
    """Days of a server that are read again each time, for traces and ratings that come late."""
    window: Annotated[int, Field(ge=50, le=2000)] = 300
    """Conversations of the reference, and most of the new ones that are compared with it. Choose what
    comes in a week or more."""
    alarm_rate: Annotated[float, Field(ge=0.01, le=0.5)] = 0.05
    """Probability of a false alarm in a month of nightly looks, at most."""
    state: str = "watch.db"
    """File that remembers what was read, beside the configuration."""
    proposals: str = "proposals"
    """Folder of the proposals, one folder each."""
    budget: BudgetConfig | None = None
    """Limits of one night, in place of those of `[budget]`."""


class RunConfig(Section):
    """Where models on this machine work and conversations are parsed (docs/how-to/workers.md).

    It is no part of a run: the run can be resumed with other workers.
    """

    executor: Annotated[str, Field(pattern=r"^(process(:[1-9]\d{0,3})?|ray(://\S+)?)?$")] = ""
    """`process` or `process:4`: processes on this machine. `ray`: actors on the Ray cluster of this
    machine, or on a new one; `ray://HOST:PORT`: on another cluster. `""`: this process itself, or
    processes where `workers` is set."""
    workers: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Number of workers. Each loads the models. Default: one for each GPU, or for each core
    (`process`) or `threads` cores (`ray`) where there is none."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads that a worker computes with. Results with equal threads are equal. Default: the cores of
    this machine, shared among the workers."""


class Config(Section):
    """Everything that decides a run."""

    prompt: str
    """The prompt to start from, with its `[[keep]]` marks. In `remask.toml` the path of its
    file."""
    components: dict[str, Annotated[ComponentConfig, BeforeValidator(_place)]] = {}
    """In place of `prompt`, the texts of a program by name: a section `[components.NAME]`, or
    `NAME = "FILE"` for short."""
    data: DataConfig = DataConfig()
    target: TargetConfig = TargetConfig()
    task: TaskConfig = TaskConfig()
    metric: MetricConfig = MetricConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    search: SearchConfig = SearchConfig()
    budget: BudgetConfig = BudgetConfig()
    objectives: tuple[ObjectiveConfig, ...] = ()
    refine: RefineConfig | None = None
    watch: Annotated[WatchConfig | None, Field(exclude=True)] = None  # it does not decide a run
    run: Annotated[RunConfig, Field(exclude=True)] = RunConfig()  # nor does this

    seed: int = 0
    """Other seeds draw other candidates."""

    def roles(self) -> dict[str, RoleConfig]:
        """The other models of a task of Inspect. What they leave open is as the target has it: the
        place where the provider is the same, the prices where the model is."""
        name = self.target.model.partition(":")[2]
        return {role: _completed(given, name, self.target) for role, given in self.task.roles.items()}


def _completed(role: RoleConfig, name: str, target: TargetConfig) -> RoleConfig:
    found: dict[str, Any] = {}
    if not role.base_url and role.model.partition("/")[0] == name.partition("/")[0]:
        found["base_url"] = target.base_url
    if role.model == name and role.input_price is role.output_price is None:
        found |= {"input_price": target.input_price, "output_price": target.output_price}
    return role.model_copy(update=found)


def make_config(values: dict[str, Any], where: str, options: Mapping[str, str] | None = None) -> Config:
    """Validate; every problem is one ConfigError sentence that names key, value and remedy.

    `where` names the source of the values. `options` are those of the command line by their key,
    such as {"budget.calls": "--max-calls"}, for values that come from there.
    """
    task, target = values.get("task"), values.get("target", {})
    if isinstance(task, dict) and task.get("name") and isinstance(target, dict):
        values = {**values, "target": {**TASK_TARGET, **target}}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe_problems(error, Config, where, options)) from None


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings; `above` wins."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        out[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return out


PROMPT_PLACES = ("system", "components")  # of a task of Inspect, for `prompt_from`

# What remask.toml has beside the keys of a Config; the prompt's path stands for its text.
FILE_KEYS = {
    "prompt": "Path of the file with the prompt to start from, `[[keep]]` marks included.",
    "prompt_from": '`"system"`, in place of `prompt`: the system message of a task of Inspect. '
    '`"components"`: also the descriptions of its tools.',
    "run_dir": "Folder for the run. Default: a new folder `runs/DATE-TIME`.",
}
