"""filters: what containerd's grammar says, held against examples, its own quoting, and noise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.errors import InvalidInput
from imagecached.snapshotter.filters import Filter, Operator, Selector, holds, parse, parse_all

fields = st.text("abzAZ059_", min_size=1, max_size=8) | st.text(
    st.characters(exclude_characters="\x00\ufffd", exclude_categories=["Cs"]), max_size=8
)
texts = st.text(st.characters(exclude_characters="\x00\ufffd", exclude_categories=["Cs"]), max_size=12)
selectors = st.builds(
    Selector,
    st.lists(fields, min_size=1, max_size=3).map(tuple),
    st.sampled_from(["==", "!=", "~="]),
    texts,
) | st.builds(Selector, st.lists(fields, min_size=1, max_size=3).map(tuple))


def quoted(text: str, *, escape_all: bool) -> str:
    """As Go's %q writes it, or with everything escaped."""
    if escape_all:
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in text) + '"'
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


def written(one: Filter, *, escape_all: bool) -> str:
    """The filter as text."""
    return ",".join(
        ".".join(quoted(field, escape_all=escape_all) for field in selector.path)
        + selector.operator
        + (quoted(selector.value, escape_all=escape_all) if selector.operator else "")
        for selector in one
    )


@given(st.lists(selectors, min_size=1, max_size=3).map(tuple), st.booleans())
def test_what_is_written_is_read(one: Filter, escape_all: bool) -> None:
    """Any path and any value survive quoting."""
    assert parse(written(one, escape_all=escape_all)) == one


@given(st.text(max_size=40) | st.text('ab.,=!~"/|\\ x0u\n', max_size=30))
def test_noise_is_refused_or_understood(text: str) -> None:
    """Nothing but InvalidInput, and what is understood can be asked."""
    try:
        found = parse_all([text])
    except InvalidInput:
        return
    holds(found, lambda path: "a" if path else None)


@pytest.mark.parametrize(
    ("text", "path", "operator", "value"),
    [
        ("name==foo", ("name",), "==", "foo"),
        ("name == foo", ("name",), "==", "foo"),
        ("  name!= foo", ("name",), "!=", "foo"),
        ("labels.k==sha256:abc/def=x~y", ("labels", "k"), "==", "sha256:abc/def=x~y"),
        ('labels."containerd.io/snapshot.ref"==x', ("labels", "containerd.io/snapshot.ref"), "==", "x"),
        ('labels."a.b".c', ("labels", "a.b", "c"), "", ""),
        ("9_x", ("9_x",), "", ""),
        ('parent==""', ("parent",), "==", ""),
        ("name~=/^a\\/b$/", ("name",), "~=", "^a/b$"),
        ("name~=|a|", ("name",), "~=", "a"),
        (r'name=="\x41\101\u0041\n"', ("name",), "==", "AAA\n"),
        (r'name=="\xff"', ("name",), "==", "\udcff"),
        (r'name=="\ud800"', ("name",), "==", "\ufffd"),
        ("name==é", ("name",), "==", "é"),
    ],
)
def test_one_selector(text: str, path: tuple[str, ...], operator: Operator, value: str) -> None:
    """Each form of a selector."""
    assert parse(text) == (Selector(path, operator, value),)


@pytest.mark.parametrize(
    "text",
    [
        "name=", "name===x", "name=!x", "name==", "==x", ",", "name,", ",name", "name.", ".name", "name==a b",
        "name==a ,kind", "name==.x", "name==,x", "a-b", "'a'", 'name=="a', 'name=="a\n"', r'name=="\q"',
        r'name=="\x4"', r'name=="\400"', r'name=="\U00110000"', "name==/a/", "/name/==a", "name==\x00",
        'name=="a"b', "name==a\ufffd", " ", "x" * 70_000,
    ],
)  # fmt: skip
def test_what_is_no_filter(text: str) -> None:
    """InvalidInput that says where."""
    with pytest.raises(InvalidInput, match="filter"):
        parse(text)


RECORD = {("name",): "n", ("labels", "k"): "v", ("labels", "e"): ""}


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], True),
        ([""], True),
        (["", "name==x"], True),
        (["name==n"], True),
        (["name==n,labels.k==v"], True),
        (["name==n,labels.k==w"], False),
        (["name==x", "labels.k"], True),
        (["labels.e"], True),
        (["labels.missing"], False),
        (['labels.missing==""'], False),
        (['labels.missing!=""'], False),
        (["labels.missing!=x"], True),
        (['labels.missing~="^$"'], True),
        (["name~=N"], False),
        (["name~=(", "name==x"], False),
    ],
)
def test_what_holds(texts: list[str], expected: bool) -> None:
    """AND inside, OR between; absence is not equal to anything, and differs from everything but nothing."""
    assert holds(parse_all(texts), RECORD.get) is expected
