r"""Read texts at places in files, and write new texts there.

A place is written in one of two ways:

- `FILE`: the whole file is the text. The front matter of a Markdown file, a byte order mark and the
  line breaks at both ends are not part of it.
- `FILE#POINTER`: a text inside of a JSON, YAML or Markdown file. POINTER is a JSON Pointer
  (RFC 6901), such as `/tools/0/description`; a slash in a key is written `~1` and a tilde `~0`. In
  a Markdown file each key is a heading: `prompt.md#/Tools/Search` is the text below the heading
  Search inside of the section Tools, with its subsections.

A component has a name and a place. A name that ends with `*` takes all texts of a file, or of the part
that POINTER names, each under its own name (`tool_lists.find_texts`): `"tool:*" = "tools.json"`
gives `tool:search` and so on, `"tool:*/*"` the descriptions of their parameters,
`tool:search/query`.

Every byte elsewhere in the file stays the same. Refused are YAML files of several
documents, texts behind an alias (an anchor can be written; its aliases follow), keys that appear
twice on the way to a text, line breaks of two kinds in one text file, and other encodings than UTF-8.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from remask.data.json_nodes import (
    JsonDocument,
    Keys,
    Slot,
    UnreadableValue,
    find_node,
    format_pointer,
    parse_pointer,
    reach,
    to_plain,
)
from remask.data.markdown_sections import MarkdownDocument, TextDocument
from remask.data.strict_json import decode_utf8
from remask.data.tool_lists import TextPlaces, convert_tools, find_parameter_texts, find_texts
from remask.data.trace_record import UnreadableRecord
from remask.data.yaml_nodes import YamlDocument
from remask.errors import ConfigError, DataError
from remask.files import draft, read_file, require_prompt

Document = JsonDocument | YamlDocument | TextDocument
_BOM = b"\xef\xbb\xbf"
_KINDS: dict[str, type[Document]] = {
    ".json": JsonDocument,
    ".yaml": YamlDocument,
    ".yml": YamlDocument,
    ".md": MarkdownDocument,
    ".markdown": MarkdownDocument,
}
_ALL, _PARAMETERS = "*", "*/*"  # at the end of a name


@dataclass(frozen=True, slots=True)
class Place:
    """A text in a file. `keys` is empty for the whole file."""

    path: Path
    keys: tuple[str | int, ...]


class _File:
    """A file with texts in it. Raises DataError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        raw = read_file(path, "there is no such file; a text inside of a file is written FILE#/POINTER")
        self.kind = _KINDS.get(path.suffix.lower(), TextDocument)
        if self.kind is TextDocument:
            require_prompt(path, raw)
        self._load(raw)

    def _load(self, raw: bytes) -> None:
        self.mark = _BOM if raw.startswith(_BOM) else b""
        with self._name_errors():
            self.document = self.kind(decode_utf8(raw.removeprefix(_BOM)))

    @property
    def content(self) -> bytes:
        """The bytes of the file."""
        return self.mark + self.document.text.encode()

    def find(self, keys: Keys) -> Slot:
        """Return the text at `keys`."""
        if not keys and not isinstance(self.document, TextDocument):
            raise DataError(
                "a whole JSON or YAML file is no text; name a text in it (FILE#/key), or take all with a "
                'name that ends with * (such as "tool:*")',
                self.path,
            )
        with self._name_errors():
            slot = self.document.find(keys)
            _require_utf8(slot.text)
            return slot

    def replace(self, changes: Mapping[tuple[str | int, ...], str]) -> None:
        """Write new texts by their keys. Raises DataError where one would be read as another text."""
        slots = sorted(((self.find(keys), keys) for keys in changes), key=lambda found: -found[0].start)
        for slot, keys in slots:
            with self._name_errors():
                _require_utf8(changes[keys])
                self.document = self.kind(self.document.replace(slot, changes[keys]))
        self._load(self.content)
        for slot, keys in slots:
            wanted = changes[keys].strip("\n") if isinstance(self.document, TextDocument) else changes[keys]
            if self.find(keys).text != wanted:
                words = "the new text has a heading or marks that would change the rest of the file"
                raise DataError(f"{words}; write it without them", self.path, self.find_line(slot))

    def expand(self, keys: tuple[str | int, ...], parameters: bool) -> TextPlaces:
        """Return where the texts below `keys` are, by their names."""
        if isinstance(self.document, TextDocument):
            raise DataError("a name with * needs a JSON or YAML file; give the name without *", self.path)
        with self._name_errors(keys):
            value = to_plain(find_node(self.document.root, keys))
            found = find_parameter_texts(value) if parameters else find_texts(value)
        return {name: (*keys, *inner) for name, inner in found.items()}

    def read_value(self, keys: Keys) -> Any:
        """Return the value at `keys`."""
        if isinstance(self.document, TextDocument):
            raise DataError("is neither JSON nor YAML; save it as one of them", self.path)
        with self._name_errors():
            return to_plain(find_node(self.document.root, keys))

    def find_line(self, slot: Slot) -> int:
        """Return the line where a text begins, from 1."""
        return 1 + self.document.text.count("\n", 0, slot.start)

    @contextmanager
    def _name_errors(self, above: Keys = ()) -> Iterator[None]:
        """Turn what is wrong in the file into a DataError. above: the keys of the part that is read."""
        try:
            yield
        except UnreadableValue as error:
            raise DataError(str(error), self.path, self.find_value_line((*above, *error.keys))) from None
        except UnreadableRecord as error:
            raise DataError(str(error), self.path, error.line) from None

    def find_value_line(self, keys: Keys) -> int | None:
        """Return the line where a value begins, from 1; None if that is unknown."""
        if isinstance(self.document, TextDocument):
            return None
        return 1 + self.document.text.count("\n", 0, reach(self.document.root, keys).start)


class _Places:
    """The places of components, and the files that they are in. Raises ConfigError and DataError."""

    def __init__(self, spec: Mapping[str, str], base: Path) -> None:
        self.files: dict[Path, _File] = {}
        self.places: dict[str, Place] = {}
        for name, text in spec.items():
            for found, keys in self._expand(name, parse_place(text, base)):
                if found in self.places:
                    raise ConfigError(
                        f"two components have the name {found!r}; rename one, or leave out {name!r}"
                    )
                self.places[found] = keys
        self._refuse_overlaps()

    def open(self, path: Path) -> _File:
        """Return the file at `path`, which is read once."""
        real = path.resolve()
        if real not in self.files:
            self.files[real] = _File(path)
        return self.files[real]

    def find(self, name: str) -> Slot:
        """Return the text of a component."""
        place = self.places[name]
        return self.open(place.path).find(place.keys)

    def _expand(self, name: str, place: Place) -> Iterator[tuple[str, Place]]:
        if not name.endswith(_ALL):
            yield name, place
            return
        parameters = name.endswith(_PARAMETERS)
        prefix = name.removesuffix(_PARAMETERS if parameters else _ALL)
        for inner, keys in self.open(place.path).expand(place.keys, parameters).items():
            yield prefix + inner, Place(place.path, keys)

    def _refuse_overlaps(self) -> None:
        """Raise ConfigError where two components share a text, or one holds the other."""
        found = []
        for name, place in self.places.items():
            slot = self.find(name)
            found.append((str(place.path.resolve()), slot.start, -slot.stop, name))
        found.sort()
        for one, other in pairwise(found):
            if one[0] == other[0] and (other[1] < -one[2] or one[1:3] == other[1:3]):
                place = self.places[other[3]]
                raise ConfigError(
                    f"the components {one[3]!r} and {other[3]!r} share a text of {place.path}; give each "
                    "its own place"
                )


def parse_place(text: str, base: Path = Path()) -> Place:
    """Parse `FILE` or `FILE#POINTER`; files are relative to `base`. Raises ConfigError without a file."""
    file, mark, pointer = _split_place(text, base)
    if not file.strip():
        raise ConfigError(f"the place {text!r} names no file; write FILE or FILE#/POINTER")
    return Place(base / file, parse_pointer(f"/{pointer}") if mark else ())


def _split_place(text: str, base: Path) -> tuple[str, str, str]:
    """Split a place at its first `#/` that does not end the name of a folder, such as `C#/`."""
    at = text.find("#/")
    while at >= 0 and (base / text[: at + 1]).is_dir():
        at = text.find("#/", at + 1)
    return (text, "", "") if at < 0 else (text[:at], "#/", text[at + 2 :])


def format_place(place: Place, base: Path = Path()) -> str:
    """Write a place as `parse_place` reads it."""
    file = place.path.relative_to(base) if place.path.is_relative_to(base) else place.path
    return f"{file}#{format_pointer(place.keys)}" if place.keys else str(file)


def expand_places(spec: Mapping[str, str], base: Path = Path()) -> dict[str, str]:
    """Return the place of each component, with names that end with `*` replaced by what they take.

    Raises ConfigError and DataError, in one sentence with the file and the line: for a file or a
    part that is not there, a part that is no text, an unknown shape of a file, a tool whose schema
    is no object, two tools or components of one name, and two components that share a text.
    """
    return {name: format_place(place, base) for name, place in _Places(spec, base).places.items()}


def read_places(spec: Mapping[str, str], base: Path = Path()) -> dict[str, str]:
    """Return the text of each component. `spec`: its place by its name. Raises as `expand_places`.

    >>> import remask
    >>> from pathlib import Path
    >>> size = Path("agent.json").write_text('{"style": "Be short."}')
    >>> remask.read_places({"style": "agent.json#/style"})
    {'style': 'Be short.'}
    """
    places = _Places(spec, base)
    return {name: places.find(name).text for name in places.places}


def write_places(
    spec: Mapping[str, str],
    texts: Mapping[str, str],
    base: Path = Path(),
    before: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write new texts of components into their files. Returns the files that have changed.

    No file is replaced before all new ones are written. Components without a new text stay as they
    are. before: the texts that were read when the new ones were made; others mean that a file has
    changed since, which is an error. Raises as `expand_places` does, and for an unknown component.

    >>> import remask
    >>> from pathlib import Path
    >>> size = Path("agent.json").write_text('{"style": "Be short."}')
    >>> files = remask.write_places({"style": "agent.json#/style"}, {"style": "Be brief."})
    >>> Path("agent.json").read_text()
    '{"style": "Be brief."}'
    """
    places = _Places(spec, base)
    changes: dict[Path, dict[tuple[str | int, ...], str]] = {}
    for name, text in texts.items():
        if name not in places.places:
            raise ConfigError(f"there is no component {name!r}; there are: {', '.join(places.places)}")
        place, slot = places.places[name], places.find(name)
        if before is not None and slot.text not in (before.get(name), text):
            file = places.open(place.path)
            raise DataError(
                f"the text of {name!r} has changed since it was read; start again from the new text",
                place.path,
                file.find_line(slot),
            )
        if text != slot.text:
            changes.setdefault(place.path.resolve(), {})[place.keys] = text
    for path, new in changes.items():
        if not path.stat().st_mode & 0o222:  # a rename would replace it all the same
            raise ConfigError(f"{places.files[path].path} is read-only; make it writable, or write elsewhere")
        places.files[path].replace(new)
    with ExitStack() as drafts:
        for path in changes:
            drafts.enter_context(draft(path)).write_bytes(places.files[path].content)
    return [places.files[path].path for path in changes]


def read_tools(place: str, base: Path = Path()) -> list[dict[str, Any]]:
    """Return the tools at a place in the form of OpenAI's chat completions.

    Raises ConfigError and DataError.
    """
    found = parse_place(place, base)
    file = _File(found.path)
    try:
        return convert_tools(file.read_value(found.keys))
    except UnreadableValue as error:
        raise DataError(str(error), found.path, file.find_value_line((*found.keys, *error.keys))) from None


def _require_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnreadableRecord("a text holds half of a surrogate pair; save it as proper Unicode") from None
