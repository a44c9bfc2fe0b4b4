"""The line `imports` of containerd's main file."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.dropin import Version
from imagecached.dropin.imports import covers, with_import, without_import
from imagecached.errors import FailedPrecondition

OURS = "conf.d/99-imagecached.toml"
TEXTS = [
    "",
    "version = 2\n",
    "# a comment\nversion = 3\n\n[plugins]\n  [plugins.'x']\n    imports = ['not at the top']\n",
    'imports = ["/etc/containerd/conf.d/*.toml"]\nversion = 2\n',
    'version = 2\n  imports = [\n    "a.toml", # why ]\n    "b.toml",\n  ]\nroot = "/x"\n[grpc]\nuid = 1\n',
    'root = "[grpc]"\nimports = []',
    'root = """\nimports = 1\n"""\nversion = 2\n',
]


@pytest.mark.parametrize("text", TEXTS)
def test_one_more_import_changes_nothing_else(text: str) -> None:
    """Wherever the line is, over however many lines; without one there is a new one at the top."""
    try:
        changed = with_import(text, OURS)
    except FailedPrecondition:
        assert '"""' in text  # what only looks like the line is left alone, and that is said
        return
    before, after = tomllib.loads(text), tomllib.loads(changed)
    assert after.pop("imports") == [*before.pop("imports", []), OURS]
    assert after == before
    kept = [
        line for line in text.splitlines() if "imports" not in line and line.strip()[:1] not in ('"', "]")
    ]
    assert [line for line in changed.splitlines() if line in kept] == kept
    assert tomllib.loads(without_import(changed, OURS)) == {
        key: value for key, value in tomllib.loads(text).items() if key != "imports" or value
    }


@pytest.mark.parametrize("text", ["[", "imports = 1\nimports = 2"])
def test_what_is_no_toml_is_not_touched(text: str) -> None:
    """The reason is told."""
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        with_import(text, OURS)


@given(st.text(st.sampled_from("imports=[]\n\"'# ,a.{}"), max_size=40))
def test_any_text_is_changed_rightly_or_not_at_all(text: str) -> None:
    """Either the import is the only difference, or there is an error."""
    try:
        changed = with_import(text, OURS)
    except FailedPrecondition:
        return
    before = tomllib.loads(text)
    assert tomllib.loads(changed) == {**before, "imports": [*before.get("imports", []), OURS]}


@pytest.mark.parametrize(
    ("imports", "covered"),
    [
        (["conf.d/99-imagecached.toml"], True),
        (["/etc/containerd/conf.d/*.toml"], True),
        (["conf.d/*.toml"], True),
        (["conf.d/other.toml", "/etc/*.toml"], False),
        ([], False),
    ],
)
def test_an_import_may_be_there_already(imports: list[str], covered: bool) -> None:
    """By name or by pattern."""
    main = Path("/etc/containerd/config.toml")
    assert covers({"imports": imports}, main, main.parent / OURS, Version(1, 7, 16)) is covered


def test_old_containerds_find_no_relative_patterns() -> None:
    """They count from the folder that it was started in."""
    main = Path("/etc/containerd/config.toml")
    found = {
        pattern: covers({"imports": [pattern]}, main, main.parent / OURS, Version(1, 6))
        for pattern in ("conf.d/*.toml", "/etc/containerd/conf.d/*.toml", OURS)
    }
    assert list(found.values()) == [False, True, True]
