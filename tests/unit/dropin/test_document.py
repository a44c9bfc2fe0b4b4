"""Tables as TOML."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from imagecached.dropin.document import render

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALAR = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXT)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
TABLE = st.dictionaries(TEXT, VALUE, max_size=4)


@given(TABLE)
def test_what_is_printed_is_what_is_read(table: dict[str, Any]) -> None:
    """Any table of any values, with keys that need quotes, comes back the same."""
    assert tomllib.loads(render(table, head="any\nhead")) == table


def test_comments_stand_before_what_they_explain() -> None:
    """Tables of tables alone have no head of their own, unless there is something to say."""
    table = {"version": 3, "a": {"b.c": {"d": True}, "e": [{"f": 1}, {"f": 2}]}}
    comments = {("a", "b.c"): "a table", ("a", "b.c", "d"): "a key", ("a", "e"): "a list"}
    assert render(table, "head", comments) == (
        '# head\nversion = 3\n\n# a table\n[a."b.c"]\n# a key\nd = true\n'
        "\n# a list\n[[a.e]]\nf = 1\n\n[[a.e]]\nf = 2\n"
    )
