"""Convert spans to operations: the attributes in which each convention stores messages and ratings.

Supported are four generations of the OpenTelemetry GenAI conventions, OpenInference, OpenLLMetry,
Logfire, the Vercel AI SDK and MLflow. A key can hold a structure, JSON in a string, or be spread
over indexed attributes (`gen_ai.prompt.0.role`). For inputs and for outputs, the first key in the
table that holds messages is used.

Sources: opentelemetry-semantic-conventions 1.36 and 1.37–1.41 (docs/gen-ai/gen-ai-events.md,
gen-ai-spans.md, non-normative/examples-llm-calls.md); OpenInference spec/semantic_conventions.md,
llm_spans.md and annotations.md (2026); OpenLLMetry 0.4x SpanAttributes; Vercel AI SDK 5 telemetry.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from remask.data.dialects import Message, decode_json, extract_messages, is_truncated
from remask.data.formats.call_tree import NO_ASSESSMENT, Assessment, Operation
from remask.data.messages import as_text, join_text
from remask.data.trace_record import Kind, Rating

# opentelemetry-util-genai 1.x reads only the first variable, and 0.x also the second. Before that,
# opentelemetry-instrumentation-openai-v2 took "true". OpenLLMetry reads the last one.
NO_TEXT_REASON: Final = (
    "contains no text, because capture of content is off by default; where the traces are made, set "
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_ONLY (releases before 1.0 also need "
    "OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental, and OpenLLMetry TRACELOOP_TRACE_CONTENT=true)"
)
EXCEPTION_EVENT: Final = "exception"


class Key(NamedTuple):
    """An attribute that holds messages."""

    name: str
    model_call: bool = True  # only model calls have this attribute
    choices: bool = False  # a list of alternative answers; only the first was used


INPUT_KEYS: Final = (
    Key("gen_ai.input.messages"),  # ≥ 1.37
    Key("llm.input_messages"),  # OpenInference
    Key("gen_ai.prompt"),  # OpenLLMetry: indexed, or one JSON text
    Key("llm.prompts"),
    Key("ai.prompt.messages"),  # Vercel AI SDK
    Key("langfuse.observation.input", model_call=False),
    Key("braintrust.input_json", model_call=False),
    Key("braintrust.input", model_call=False),
    Key("ai.prompt", model_call=False),
    Key("all_messages_events", model_call=False),  # Logfire and Pydantic AI
    Key("pydantic_ai.all_messages", model_call=False),
    Key("mlflow.spanInputs", model_call=False),
    Key("traceloop.entity.input", model_call=False),
    Key("input.value", model_call=False),
)
OUTPUT_KEYS: Final = (
    Key("gen_ai.output.messages", choices=True),
    Key("llm.output_messages"),
    Key("gen_ai.completion", choices=True),
    Key("llm.completions", choices=True),
    Key("langfuse.observation.output", model_call=False),
    Key("braintrust.output_json", model_call=False),
    Key("braintrust.output", model_call=False),
    Key("ai.response.text", model_call=False),
    Key("ai.response.toolCalls", model_call=False),
    Key("all_messages_events", model_call=False),
    Key("pydantic_ai.all_messages", model_call=False),
    Key("mlflow.spanOutputs", model_call=False),
    Key("traceloop.entity.output", model_call=False),
    Key("output.value", model_call=False),
)
SYSTEM_KEYS: Final = ("gen_ai.system_instructions",)
MODEL_KEYS: Final = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name",
                     "ai.model.id", "mlflow.chat.model", "langfuse.observation.model.name")  # fmt: skip
TEMPLATE_KEYS: Final = ("llm.prompt_template.template",)
SESSION_KEYS: Final = ("gen_ai.conversation.id", "session.id", "langfuse.session.id",
                       "mlflow.trace.session")  # fmt: skip
ALIAS_KEYS: Final = ("gen_ai.response.id",)
# Attributes with the kind of an operation, and the kinds that are model calls.
MODEL_CALL_KINDS: Final[dict[str, frozenset[str]]] = {
    "openinference.span.kind": frozenset({"LLM"}),
    "gen_ai.operation.name": frozenset({"chat", "text_completion", "generate_content"}),
    "llm.request.type": frozenset({"chat", "completion"}),
    "mlflow.spanType": frozenset({"CHAT_MODEL", "LLM"}),
    "langfuse.observation.type": frozenset({"generation"}),
}
# Events with one message each (≤ 1.36), and the role of the message.
EVENT_ROLES: Final = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
    "gen_ai.choice": "assistant",
    "gen_ai.content.prompt": "user",  # ≤ 1.27: all messages as JSON
    "gen_ai.content.completion": "assistant",
}
OUTPUT_EVENTS: Final = {"gen_ai.choice", "gen_ai.content.completion"}
DETAILS_EVENT: Final = "gen_ai.client.inference.operation.details"  # has the span's attributes
EVALUATION_EVENT: Final = "gen_ai.evaluation.result"
KINDS_BY_ANNOTATOR: Final[dict[str, Kind]] = {"HUMAN": "human", "LLM": "llm", "CODE": "code"}
DOTTED_PREFIXES: Final = ("message.", "message_content.", "tool_call.", "annotation.",
                          "evaluation.")  # fmt: skip
ANNOTATION_KEYS: Final = (("annotations", "annotation"), ("evaluations", "evaluation"))


@dataclass(frozen=True, slots=True)
class Event:
    """An event within a span; `body` is that of a log record."""

    name: str
    attributes: Mapping[str, Any]
    body: object = None


@dataclass(frozen=True, slots=True)
class Span:
    """One span. An id is "" if there is none."""

    trace: str
    id: str
    parent: str
    attributes: Mapping[str, Any]
    events: tuple[Event, ...] = ()
    error: str = ""  # why the operation failed, or ""
    links: tuple[str, ...] = ()  # ids of linked spans


def operation_from_span(span: Span, assessment: Assessment = NO_ASSESSMENT) -> Operation:
    """Convert a span to an operation. `assessment`: feedback that is stored outside of the span.

    A truncated input or output counts as an error.
    """
    places = [span.attributes, *(e.attributes for e in span.events if e.name == DETAILS_EVENT)]
    inputs, input_shows_call = _read_messages(places, INPUT_KEYS, "user")
    outputs, output_shows_call = _read_messages(places, OUTPUT_KEYS, "assistant")
    event_inputs, event_outputs = _read_events(span.events)
    has_messages = input_shows_call or output_shows_call or bool(event_inputs or event_outputs)
    systems = (_read_system(get_value(place, key)) for place in places for key in SYSTEM_KEYS)
    system = next(filter(None, systems), "")
    if system and not any(m.get("role") == "system" for m in inputs):
        inputs = [{"role": "system", "content": system}, *inputs]
    ratings = (*parse_annotations(span.attributes), *_parse_evaluations(span.events))
    return Operation(
        trace=span.trace,
        id=span.id,
        parent=span.parent,
        model_call=_is_model_call(places, has_messages),
        input=tuple(inputs or event_inputs),
        output=tuple(outputs or event_outputs),
        error=span.error or _find_truncation(places),
        assessment=Assessment(assessment.ratings + ratings, assessment.desired),
        model=_find_first(places, MODEL_KEYS),
        template=_find_first(places, TEMPLATE_KEYS),
        session=_find_first(places, SESSION_KEYS),
        aliases=tuple(name for key in ALIAS_KEYS if (name := _find_first(places, (key,)))),
    )


def describe_failure(failed: bool, message: object, events: Iterable[Event]) -> str:
    """Return why a span failed, which only its exception may say; "" if it did not fail."""
    if not failed or as_text(message):
        return as_text(message) if failed else ""
    raised = next((e.attributes for e in events if e.name == EXCEPTION_EVENT), {})
    words = (as_text(raised.get(f"exception.{key}")) for key in ("type", "message"))
    return ": ".join(filter(None, words)) or "no reason given"


def get_value(attributes: Mapping[str, Any], key: str) -> object:
    """Return the value of `key`, its JSON, or a structure that is spread over `key.0.…`."""
    if key in attributes:
        return nest_dotted(decode_json(attributes[key]))
    start = f"{key}."
    spread = {name[len(start) :]: v for name, v in attributes.items() if name.startswith(start)}
    return _build_tree(spread) if any(name[:1].isdigit() for name in spread) else None


def nest_dotted(value: object) -> object:
    """Convert objects with keys like `message.role` to nested objects.

    OpenInference writes such objects if a value is not spread over attributes (spec/llm_spans.md).
    """
    if isinstance(value, list):
        return [nest_dotted(item) for item in value]
    if isinstance(value, dict) and any(key.startswith(DOTTED_PREFIXES) for key in value):
        return _build_tree(value)
    return value


def _build_tree(dotted: Mapping[str, Any]) -> object:
    tree: dict[str, Any] = {}
    for name, leaf in dotted.items():
        at = tree
        *path, last = name.split(".", 15)
        for step in path:
            inner = at.setdefault(step, {})
            if not isinstance(inner, dict):
                break
            at = inner
        else:
            at.setdefault(last, nest_dotted(leaf))
    return _convert_lists(tree)


def _convert_lists(tree: object) -> object:
    """Convert objects whose keys are all numbers to lists."""
    if not isinstance(tree, dict):
        return tree
    inner = {key: _convert_lists(value) for key, value in tree.items()}
    if inner and all(key.isdecimal() and len(key) < 10 for key in inner):
        return [inner[key] for key in sorted(inner, key=int)]
    return inner


def parse_annotations(attributes: Mapping[str, Any], prefix: str = "") -> list[Rating]:
    """Return OpenInference's annotations and evaluations of a span (spec/annotations.md)."""
    found: list[Rating] = []
    for plural, single in ANNOTATION_KEYS:
        items = get_value(attributes, prefix + plural)
        for item in items if isinstance(items, list) else []:
            inner = item.get(single) if isinstance(item, dict) else None
            if isinstance(inner, dict):
                judge = KINDS_BY_ANNOTATOR.get(as_text(inner.get("annotator_kind")), "unknown")
                name, score, label = (inner.get(key) for key in ("name", "score", "label"))
                found += build_ratings(name, score, label, inner.get("explanation"), judge)
    return list(dict.fromkeys(found))  # some producers write a result in both forms


def parse_evaluation(attributes: Mapping[str, Any]) -> list[Rating]:
    """Return the rating in the attributes of a `gen_ai.evaluation.result` event."""
    keys = ("name", "score.value", "score.label", "explanation")
    name, score, label, why = (attributes.get(f"gen_ai.evaluation.{key}") for key in keys)
    return build_ratings(name, score, label, why)


def build_ratings(
    name: object, score: object, label: object, explanation: object, kind: Kind = "unknown"
) -> list[Rating]:
    """Return one rating, or [] if all is empty. With a number, the label is part of the comment."""
    words = [text for text in (as_text(label), as_text(explanation)) if text]
    value: float | str | None = score if isinstance(score, bool | int | float) else None
    if value is None and words and label:
        value = words.pop(0)
    if value is None and not words:
        return []
    return [Rating(as_text(name), value, kind, ": ".join(words))]


def _read_messages(
    places: list[Mapping[str, Any]], keys: tuple[Key, ...], role: str
) -> tuple[list[Message], bool]:
    """Return the messages of the first key that has any, and whether it shows a model call."""
    for place in places:
        for key in keys:
            value = get_value(place, key.name)
            if key.choices and isinstance(value, list):
                value = value[:1]
            if value is not None and (found := extract_messages(value, role)):
                return found, key.model_call
    return [], False


def _read_events(events: tuple[Event, ...]) -> tuple[list[Message], list[Message]]:
    """Return (input, output) from events with one message each."""
    inputs: list[Message] = []
    outputs: list[Message] = []
    for event in events:
        role = EVENT_ROLES.get(event.name)
        is_output = event.name in OUTPUT_EVENTS
        if role is None or (is_output and outputs):  # a second choice was not used
            continue
        (outputs if is_output else inputs).extend(_extract_event_messages(event, role))
    return inputs, outputs


def _extract_event_messages(event: Event, role: str) -> list[Message]:
    for value in _list_bodies(event):
        value = decode_json(value)
        if isinstance(value, dict):
            inner = value.get("message")
            value = inner if isinstance(inner, dict) else value
            if "content" in value or "tool_calls" in value:
                value = {"role": role, **value}
        if found := extract_messages(value, role):
            return found
    return []


def _list_bodies(event: Event) -> Iterator[object]:
    yield event.body
    for key in ("gen_ai.event.content", "gen_ai.prompt", "gen_ai.completion", "message"):
        yield event.attributes.get(key)
    keys = ("content", "role", "tool_calls", "id")
    yield {key: decode_json(event.attributes[key]) for key in keys if key in event.attributes} or None


def _parse_evaluations(events: tuple[Event, ...]) -> list[Rating]:
    return [
        found
        for event in events
        if event.name == EVALUATION_EVENT
        for found in parse_evaluation(event.attributes)
    ]


def _is_model_call(places: list[Mapping[str, Any]], by_key: bool) -> bool:
    """Decide by the declared kind if there is one, else by the keys of the span."""
    for place in places:
        for key, kinds in MODEL_CALL_KINDS.items():
            if isinstance(kind := decode_json(place.get(key)), str) and kind:
                return kind in kinds
    return by_key


def _find_truncation(places: list[Mapping[str, Any]]) -> str:
    for place in places:
        for key in (*INPUT_KEYS, *OUTPUT_KEYS):
            if is_truncated(place.get(key.name)):
                return f"{key.name} is truncated by a limit on the length of attributes"
    return ""


def _read_system(value: object) -> str:
    return join_text(value) if value else ""


def _find_first(places: list[Mapping[str, Any]], keys: tuple[str, ...]) -> str:
    values = (place.get(key) for key in keys for place in places)
    return next((v for value in values if isinstance(v := decode_json(value), str) and v), "")
