"""WWW-Authenticate: what registries send, and what they might."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagecached.registry.challenges import Challenge, parse_challenges

TOKEN = st.text(alphabet=string.ascii_letters + string.digits + "!#$%&'*+.^_`|~-", min_size=1, max_size=12)
VALUE = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
PARAMETERS = st.dictionaries(TOKEN.map(str.lower), VALUE, min_size=1, max_size=4)


def quoted(value: str) -> str:
    """As a quoted-string."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@pytest.mark.parametrize(
    ("headers", "challenges"),
    [
        ([], []),
        ([""], []),
        (["Basic"], [("basic", {})]),
        (['Basic realm="x"'], [("basic", {"realm": "x"})]),
        (
            [
                'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"'
            ],
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull",
                    },
                )
            ],
        ),
        (['BEARER  Realm = "x" , Service=y'], [("bearer", {"realm": "x", "service": "y"})]),
        (['Bearer realm="a,b", Basic realm="c"'], [("bearer", {"realm": "a,b"}), ("basic", {"realm": "c"})]),
        (['Bearer realm="a"', "Basic"], [("bearer", {"realm": "a"}), ("basic", {})]),
        (["Negotiate", 'Basic realm="c"'], [("negotiate", {}), ("basic", {"realm": "c"})]),
        (['Negotiate, Basic realm="c"'], [("negotiate", {}), ("basic", {"realm": "c"})]),
        (['Negotiate YII+/==, Basic realm="c"'], [("negotiate", {}), ("basic", {"realm": "c"})]),
        (['Bearer realm="say \\"hi\\" \\\\"'], [("bearer", {"realm": 'say "hi" \\'})]),
        (['Bearer realm="a",realm="b"'], [("bearer", {"realm": "a"})]),
        (['Bearer realm="never ends'], [("bearer", {})]),
        (['Bearer realm="a",,, service="b",'], [("bearer", {"realm": "a", "service": "b"})]),
        (["=nonsense"], []),
        (['Bearer error="insufficient_scope"'], [("bearer", {"error": "insufficient_scope"})]),
    ],
)
def test_parse(headers: list[str], challenges: list[tuple[str, dict[str, str]]]) -> None:
    """In order, names in lower case, what is broken ends the header."""
    assert parse_challenges(headers) == tuple(Challenge(*challenge) for challenge in challenges)


@settings(deadline=None)
@given(st.lists(st.tuples(TOKEN, PARAMETERS), min_size=1, max_size=3))
def test_round_trip(challenges: list[tuple[str, dict[str, str]]]) -> None:
    """What is written by the grammar is read as it was meant, in one header or in several."""
    written = [
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    ]
    meant = tuple(Challenge(scheme.lower(), parameters) for scheme, parameters in challenges)
    assert parse_challenges(written) == meant
    assert parse_challenges([", ".join(written)]) == meant


@settings(deadline=None)
@given(st.lists(st.text(max_size=60) | st.text(alphabet='Bearl realm="\\,= ', max_size=60), max_size=3))
def test_any_header(headers: list[str]) -> None:
    """Noise gives few or no challenges, and never an error."""
    assert len(parse_challenges(headers)) <= 16


def test_bounded() -> None:
    """A header may be as long as it likes: a bounded part of it is read."""
    assert len(parse_challenges(["Basic, " * 100_000])) == 16
    assert parse_challenges(['Bearer realm="' + "a" * 1_000_000]) == (Challenge("bearer", {}),)
