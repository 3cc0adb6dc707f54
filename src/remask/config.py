"""The settings of a run: read once, unknown keys are errors, saved whole in the run directory.

`remask.toml`, command-line flags and keyword arguments of the library all become one `Config`.
Relative paths in a file are relative to that file. Keys never hold secrets: an API key is named by
the environment variable that holds it.
"""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from remask.errors import ConfigError, DataError

MaskerName = Literal["rewrite", "span", "sentence", "insert", "attribution"]
OrderName = Literal["confidence", "entropy", "margin", "random", "leftmost"]
LockName = Literal["text", "numbers", "none"]
CommitName = Literal["steps", "threshold", "factor", "entropy_bound"]
# Drawn in turn. Insertions are better than their parent most often; `rewrite` never was, in place
# of one sentence (docs/log.md, single edits).
MASKERS: tuple[MaskerName, ...] = ("insert", "span", "insert", "sentence", "insert", "attribution")


QUERIES = 80  # that a target is asked for where nothing else is said
# Of the target, where a task of Inspect is run: the task says how its models answer, and answers of
# agents are long.
TASK_TARGET = {"temperature": None, "max_tokens": None, "timeout": 600.0}


def _role(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


class Section(BaseModel):
    # No namespace is protected: pydantic before 2.10 warns of every field called model_….
    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, protected_namespaces=()
    )


class DataConfig(Section):
    """Where the rows are and what their columns mean."""

    path: str = ""  # one file with a split column or split by content hash …
    train: str = ""  # … or a file for each split
    validation: str = ""
    test: str = ""
    input: str = "{input}"  # template over columns: the user message
    expected: str = "label"  # column of the right answer; "" where there is none
    split: str = ""  # column that says train, validation or test
    role: Literal["system", "user"] = "system"  # the message that the prompt is
    fractions: tuple[float, float, float] = (0.25, 0.25, 0.5)
    queries: Annotated[int, Field(ge=12, le=1000)] | None = None  # no file: the target writes them


class Reach(TypedDict):
    """How often and how long an API is asked, as the targets' constructors take it."""

    concurrency: int
    timeout: float
    retries: int


class EndpointConfig(Section):
    """How an API is reached, and what it costs."""

    base_url: str = ""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    timeout: Annotated[float, Field(gt=0)] = 60.0  # seconds
    retries: Annotated[int, Field(ge=0, le=20)] = 4
    input_price: Annotated[float, Field(ge=0)] | None = None  # US dollars per million tokens
    output_price: Annotated[float, Field(ge=0)] | None = None

    @property
    def reach(self) -> Reach:
        return Reach(concurrency=self.concurrency, timeout=self.timeout, retries=self.retries)


class TargetConfig(EndpointConfig):
    """The frozen model whose prompt is optimised."""

    model: str = "builtin"  # builtin | openai:MODEL | function:NAME (library only)
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float | None = 0.0
    max_tokens: Annotated[int, Field(ge=1)] | None = 256


class RoleConfig(Section):
    """Another model of a task of Inspect, such as the one that plays the user."""

    model: str  # as Inspect names it: PROVIDER/MODEL
    base_url: str = ""
    input_price: Annotated[float, Field(ge=0)] | None = None  # US dollars per million tokens
    output_price: Annotated[float, Field(ge=0)] | None = None


class TaskConfig(Section):
    """A task of Inspect in place of rows and metric; docs/inspect.md explains the keys."""

    name: str = ""  # PACKAGE/TASK or FILE.py@TASK; "": rows of [data]
    args: dict[str, Any] = {}  # of the task itself, as `inspect eval -T`
    model_args: dict[str, Any] = {}  # of the provider, as `inspect eval -M`
    roles: dict[str, Annotated[RoleConfig, BeforeValidator(_role)]] = {}  # "PROVIDER/MODEL" will do
    scorer: str = ""  # whose score counts: NAME or NAME/KEY; "": the first
    logs: str = ""  # folder of Inspect's logs; "": inspect/ in the run directory
    calls_per_sample: Annotated[int, Field(ge=1)] = 20  # expected, until some samples have run


class MetricConfig(Section):
    """What "better" means."""

    name: str = "label"  # label, exact, contains, f1, judge, promptfoo; function:NAME (library)
    answer: str = "{label}"  # how the target would say a label
    labels: tuple[str, ...] = ()  # allowed labels; empty: those of the data
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    judge: TargetConfig | None = None
    rubric: str = ""


class DenoiserConfig(EndpointConfig):
    """The diffusion language model that writes the edits; docs/sampling.md explains the keys.

    An API reads only those of an endpoint, `temperature`, `max_tokens` and `send_seed`.
    """

    # builtin[:ADAPTER] | local:PLACE | mercury[:MODEL] | chat:MODEL | object:NAME
    model: str = "builtin"
    revision: str = ""  # of a local:HUB_ID: a full commit id
    adapter: str = ""  # file that remask adapt made for the model, where that is left-to-right
    family: str = ""  # of a local:PLACE whose name does not tell
    device: str = ""  # of a local:PLACE, such as cuda:0; "": the best there is
    dtype: Literal["", "bfloat16", "float32"] = ""  # of a local:PLACE; "": the quickest there
    steps: Annotated[int, Field(ge=1, le=256)] | None = None  # denoising steps; None: by length
    temperature: Annotated[float, Field(ge=0, le=5)] | None = None  # None: 0.3, or the API's own
    position_temperature: Annotated[float, Field(ge=0, le=5)] = 0.3
    order: OrderName = "confidence"  # which masks come first
    commit: CommitName = "threshold"  # how many at once, beside the step's quota
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.9  # probability, for commit "threshold"
    factor: Annotated[float, Field(ge=0)] = 1.0  # for commit "factor"
    entropy_bound: Annotated[float, Field(ge=0)] = 0.1  # nats, for commit "entropy_bound"
    block: Annotated[int, Field(ge=1)] | None = None  # tokens finished before the next; None: all
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0  # probability of the tokens drawn from
    guidance: Annotated[float, Field(ge=0, le=10)] = 0.0  # by traces; doubles the cost
    cache: Literal["approximate", "exact"] = "approximate"  # of families that read both ways
    refresh: Annotated[int, Field(ge=1)] = 16  # steps between exact readings of the context
    api_key_env: str = ""  # "": INCEPTION_API_KEY for mercury, OPENAI_API_KEY for chat
    max_tokens: Annotated[int, Field(ge=1)] = 1024  # of one answer of chat:MODEL, thoughts included
    send_seed: bool = True  # to an API; false for one that refuses the field


class SearchConfig(Section):
    """How candidates are drawn and accepted."""

    maskers: Annotated[tuple[MaskerName, ...], Field(min_length=1)] = MASKERS
    candidates: Annotated[int, Field(ge=1, le=256)] | None = None  # per round; None: by budget
    traces: Annotated[int, Field(ge=1, le=64)] = 8  # that the DLM reads at a time
    context_tokens: Annotated[int, Field(ge=32, le=4000)] = 400
    max_growth: Annotated[float, Field(ge=1)] = 3.0  # candidate length over that of the baseline
    max_tokens: Annotated[int, Field(ge=1)] | None = None  # of a prompt, as the DLM counts
    demos: Annotated[int, Field(ge=0, le=32)] = 0  # train rows shown at its end, at most
    cautious: bool = False


class RefineConfig(Section):
    """Conversations in place of rows: edits by likelihood (docs/refine.md)."""

    traces: Annotated[tuple[str, ...], Field(min_length=1)]  # files of conversations
    columns: tuple[str, ...] = ()  # PLACE=COLUMN, as --map
    scales: tuple[str, ...] = ()  # NAME=WORST..BEST, as --scale
    redact: bool = True
    lock: LockName = "numbers"  # what of the prompt may not change
    iterations: Annotated[int, Field(ge=1)] = 8
    verify: bool = False  # compare both prompts on sealed conversations, with the target


class BudgetConfig(Section):
    """Limits that are never passed, final test included."""

    calls: Annotated[int, Field(ge=1)] | None = 2000
    tokens: Annotated[int, Field(ge=1)] | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None
    usd: Annotated[float, Field(gt=0)] | None = None


class Config(Section):
    """Everything that decides a run."""

    prompt: str  # the prompt's marked source
    data: DataConfig = DataConfig()
    target: TargetConfig = TargetConfig()
    task: TaskConfig = TaskConfig()
    metric: MetricConfig = MetricConfig()
    denoiser: DenoiserConfig = DenoiserConfig()
    search: SearchConfig = SearchConfig()
    budget: BudgetConfig = BudgetConfig()
    refine: RefineConfig | None = None
    seed: int = 0

    def roles(self) -> dict[str, RoleConfig]:
        """The other models of a task of Inspect. What they leave open is as the target has it: the
        place where the provider is the same, the prices where the model is."""
        name = self.target.model.partition(":")[2]
        return {
            role: _completed(given, name, self.target) for role, given in self.task.roles.items()
        }


def _completed(role: RoleConfig, name: str, target: TargetConfig) -> RoleConfig:
    found: dict[str, Any] = {}
    if not role.base_url and role.model.partition("/")[0] == name.partition("/")[0]:
        found["base_url"] = target.base_url
    if role.model == name and role.input_price is role.output_price is None:
        found |= {"input_price": target.input_price, "output_price": target.output_price}
    return role.model_copy(update=found)


def make_config(values: dict[str, Any], where: str) -> Config:
    """Validate; every problem is one ConfigError sentence that names key, value and remedy."""
    task, target = values.get("task"), values.get("target", {})
    if isinstance(task, dict) and task.get("name") and isinstance(target, dict):
        values = {**values, "target": {**TASK_TARGET, **target}}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {problems(error, Config)}") from None


def problems(error: ValidationError, section: type[BaseModel]) -> str:
    """What is wrong with the values of a section, each in one sentence."""
    return "; ".join(_sentence(e, section) for e in error.errors(include_url=False))


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings; `above` wins."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        out[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return out


def read_toml(path: Path) -> dict[str, Any]:
    """The nested values of a `remask.toml`, paths made absolute, `prompt` read from its file."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("there is no such file; write one or use flags", path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"not valid TOML: {error}", path) from None
    base = path.resolve().parent
    make_absolute(values, base)
    if isinstance(prompt := values.get("prompt"), str) and prompt:
        values["prompt"] = read_prompt(base / prompt)
    refine = values.get("refine")
    if isinstance(refine, dict) and isinstance(files := refine.get("traces"), str | list):
        named = [files] if isinstance(files, str) else files
        refine["traces"] = [str(base / str(file)) for file in named]
    return values


def make_absolute(values: dict[str, Any], base: Path) -> None:
    """Make the paths of nested values that are relative to `base` absolute, in place."""

    def place(where: Any, key: str, found: Callable[[str, Path], str]) -> None:
        if isinstance(where, dict) and isinstance(where.get(key), str) and where[key]:
            where[key] = found(where[key], base)

    def below(place: str, base: Path) -> str:
        return str(base / place)

    for key in ("path", "train", "validation", "test"):
        place(values.get("data"), key, below)
    place(values.get("denoiser"), "model", placed)
    place(values.get("denoiser"), "adapter", below)
    place(values.get("task"), "name", placed_task)
    place(values, "run_dir", below)


def placed(model: str, base: Path) -> str:
    """local:FOLDER with the whole path, where there is such a folder, else it is a hub id; and
    builtin:ADAPTER with that of the file."""
    kind, _, place = model.partition(":")
    there = base / place
    known = (kind == "local" and there.is_dir()) or kind == "builtin"
    return f"{kind}:{there}" if place and known else model


def placed_task(name: str, base: Path) -> str:
    """FILE.py@TASK with the whole path, where there is such a file below `base`."""
    file, at, task = name.partition("@")
    path = base / file
    return f"{path.resolve()}{at}{task}" if path.is_file() else name


def read_prompt(path: Path) -> str:
    """The text of a prompt file; a final newline is not part of the prompt."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError("there is no such prompt file", path) from None
    except IsADirectoryError:
        raise DataError("this is a folder; name the prompt file in it", path) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8 at byte {error.start}; save the prompt as UTF-8", path
        ) from None
    if not text.strip():
        raise DataError("the prompt file is empty; write the prompt to start from", path)
    return text.rstrip("\r\n")


def _sentence(error: Any, section: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = ", ".join(_known(error["loc"][:-1], section))
        return f"unknown key {key!r}; known here: {known}"
    if error["type"] == "missing":
        return f"{key} is missing"
    return f"{key} = {error['input']!r}: {error['msg'].removeprefix('Input should be ')}"


def _known(path: tuple[Any, ...], section: type[BaseModel]) -> list[str]:
    for part in path:
        if str(part) not in section.model_fields:  # a name that the user chose, such as a role's
            continue
        annotation = section.model_fields[str(part)].annotation
        options = getattr(annotation, "__args__", (annotation,))
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return sorted(section.model_fields)
