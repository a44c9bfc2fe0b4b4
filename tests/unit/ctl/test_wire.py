"""imagecachectl: JSON with less than ``json``."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.ctl import wire

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
bodies = st.recursive(
    st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(values, st.sampled_from([None, 1]), st.booleans())
def test_it_reads_what_json_writes(value: Any, indent: int | None, ascii_only: bool) -> None:
    """In every style."""
    text = f" \n{json.dumps(value, indent=indent, ensure_ascii=ascii_only)}\t\r\n"
    assert wire.decode(text.encode()) == value


@given(st.binary() | st.text('[]{}:,"\\ 01.e-truefalsn\n').map(str.encode))
def test_it_refuses_what_json_refuses(data: bytes) -> None:
    """The same values, the same errors."""
    try:
        expected = json.loads(data.decode())
    except ValueError:
        with pytest.raises(ValueError):
            wire.decode(data)
    else:
        assert repr(wire.decode(data)) == repr(expected)


@given(bodies)
def test_json_reads_what_it_writes(body: Any) -> None:
    """Every character, in values and in names."""
    assert json.loads(wire.encode(body)) == body


def test_too_deep_is_an_error_like_others() -> None:
    """No crash."""
    with pytest.raises(ValueError, match="no JSON"):
        wire.decode(b"[" * 1_000_000)


def test_an_interpreter_without_the_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gets the standard library's."""
    monkeypatch.setitem(sys.modules, "_json", None)
    monkeypatch.setattr(wire, "_scan", wire._scanner())
    assert wire.decode(b' {"a": [1, 2.5, null]} ') == {"a": [1, 2.5, None]}
    with pytest.raises(ValueError):
        wire.decode(b"{")
