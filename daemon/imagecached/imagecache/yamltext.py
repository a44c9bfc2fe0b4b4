"""Text of several YAML documents → plain values, one document at a time. The text is hostile.

Bounded before anything is built: bytes, events, depth, and the size once every alias is written out. A
broken document is one error and does not touch its neighbours. Refused by name: keys that are no text, keys
that come twice, merge keys, tags beyond YAML's plain ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from imagecached.errors import InvalidInput

MAX_TEXT_BYTES: Final = 1 << 20
MAX_DOCUMENTS: Final = 1000
_MAX_VALUES: Final = 20_000
_MAX_DEPTH: Final = 24
_MARKER: Final = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_EMPTY: Final = re.compile(r"(?:\s*(?:[#%][^\n]*)?(?:\n|$))*")
_PLAIN: Final = "tag:yaml.org,2002:"

_Loader: Final[type] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_scalars: Final = yaml.constructor.SafeConstructor()


class _Wrong(Exception):
    """What is refused, with YAML's mark of where."""

    def __init__(self, message: str, mark: Any) -> None:
        super().__init__(message)
        self.mark = mark


@dataclass(frozen=True, slots=True)
class Chunk:
    """One document's text; ``number`` counts from 1, ``line`` is where it begins in the file."""

    number: int
    line: int
    text: str


def split(data: bytes) -> list[Chunk]:
    """The documents in ``data``, unread. InvalidInput: not text, or too much of it."""
    if len(data) > MAX_TEXT_BYTES:
        raise InvalidInput(f"larger than {MAX_TEXT_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not UTF-8: {error.reason} at byte {error.start}") from error
    chunks = [chunk for chunk in _chunks(text) if not _EMPTY.fullmatch(chunk.text)]
    if len(chunks) > MAX_DOCUMENTS:
        raise InvalidInput(f"more than {MAX_DOCUMENTS} documents")
    return [Chunk(number, chunk.line, chunk.text) for number, chunk in enumerate(chunks, 1)]


def _chunks(text: str) -> Iterator[Chunk]:
    """A line that begins with ``---`` always begins a document: YAML allows it nowhere else."""
    begin, line = 0, 1
    for marker in _MARKER.finditer(text):
        yield Chunk(0, line, text[begin : marker.start()])
        line += text.count("\n", begin, marker.end())
        begin = marker.end()
    yield Chunk(0, line, text[begin:])


def load(chunk: Chunk) -> Any:
    """The values of one document. InvalidInput says what is wrong, and on which line of the file."""
    try:
        _bound(chunk.text)
        node = yaml.compose(chunk.text, Loader=_Loader)
        _bound_expanded(node)
        return None if node is None else _value(node)
    except _Wrong as error:
        raise InvalidInput(f"{error}{_at(error.mark, chunk)}") from error
    except yaml.MarkedYAMLError as error:
        what = error.problem or "broken"
        raise InvalidInput(f"not YAML: {what}{_at(error.problem_mark, chunk)}") from error
    except yaml.YAMLError as error:  # bytes that YAML does not allow
        raise InvalidInput(f"not YAML: {str(error).splitlines()[0]}") from error


def _bound(text: str) -> None:
    """Counts before anything is built. The parser itself keeps no more than its nesting."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise _Wrong(f"nested deeper than {_MAX_DEPTH}", event.start_mark)
        if number > _MAX_VALUES:
            raise _Wrong(f"more than {_MAX_VALUES} values", event.start_mark)


def _bound_expanded(root: Any) -> None:
    """The same bounds with every alias written out; an alias inside of what it names is endless."""
    sizes: dict[int, tuple[int, int]] = {}
    open_nodes: set[int] = set()

    def measure(node: Any) -> tuple[int, int]:
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in open_nodes:
            raise _Wrong("an alias that contains itself", node.start_mark)
        open_nodes.add(id(node))
        below = [measure(child) for child in _children(node)]
        open_nodes.discard(id(node))
        size, depth = 1 + sum(size for size, _ in below), 1 + max((depth for _, depth in below), default=0)
        if size > _MAX_VALUES or depth > _MAX_DEPTH + 1:
            raise _Wrong("aliases that make it too large or too deep", node.start_mark)
        sizes[id(node)] = size, depth
        return size, depth

    if root is not None:
        measure(root)


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value


def _value(node: Any) -> Any:
    if isinstance(node, yaml.SequenceNode) and node.tag == _PLAIN + "seq":
        return [_value(item) for item in node.value]
    if isinstance(node, yaml.MappingNode) and node.tag == _PLAIN + "map":
        return _mapping(node)
    if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
        return _scalar(node)
    raise _Wrong(f"not a plain YAML value: {node.tag[:60]!r}", node.start_mark)


def _mapping(node: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _PLAIN + "str":
            raise _Wrong("a key that is not text", key_node.start_mark)
        if key_node.value in found:
            raise _Wrong(f"the key {key_node.value[:60]!r} comes twice", key_node.start_mark)
        found[key_node.value] = _value(value_node)
    return found


def _scalar(node: Any) -> Any:
    try:
        return _SCALARS[node.tag](node)
    except (ValueError, IndexError, OverflowError) as error:
        raise _Wrong(f"not a number: {node.value[:60]!r}", node.start_mark) from error


def _text(node: Any) -> str:
    return str(node.value)


_SCALARS: Final[dict[str, Callable[[Any], Any]]] = {
    _PLAIN + "str": _text,
    _PLAIN + "timestamp": _text,  # only people's eyes see a time in it
    _PLAIN + "int": _scalars.construct_yaml_int,
    _PLAIN + "float": _scalars.construct_yaml_float,
    _PLAIN + "bool": _scalars.construct_yaml_bool,
    _PLAIN + "null": _scalars.construct_yaml_null,
}


def _at(mark: Any, chunk: Chunk) -> str:
    return "" if mark is None else f", line {chunk.line + mark.line}"
