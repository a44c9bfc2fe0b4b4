"""What the files of a node say together."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagecached.dropin import Version, read
from imagecached.errors import InvalidInput

ONE, TWO = Version(1, 7, 16), Version(2, 1)


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_no_file_says_nothing(tmp_path: Path) -> None:
    """A containerd without a configuration."""
    written = read(tmp_path / "config.toml", TWO)
    assert (written.files, written.document, written.form) == ((), {}, 0)


def test_imports_are_followed_once(tmp_path: Path) -> None:
    """Relative, absolute and by pattern, in containerd's order; a file that imports itself ends nothing."""
    main = put(tmp_path / "config.toml", f'imports = ["d/*.toml", "{tmp_path}/last.toml"]\nversion = 2')
    put(tmp_path / "d/b.toml", "b = 1")
    put(tmp_path / "d/a.toml", "b = 2\nimports = ['../config.toml']")
    put(tmp_path / "last.toml", "root = '/last'")
    written = read(main, TWO)
    assert [str(path.relative_to(tmp_path)) for path in written.files] == [
        "config.toml", "d/a.toml", "d/b.toml", "last.toml",
    ]  # fmt: skip
    assert (written.document["b"], written.document["root"], written.form) == (1, "/last", 2)


def test_containerd_2_merges_and_containerd_1_replaces(tmp_path: Path) -> None:
    """In 1 the section of a plugin is that of the last file that has one; lists grow in both."""
    main = put(
        tmp_path / "config.toml", "imports = ['more.toml']\n[plugins.cri]\na = 1\nl = [1]\n[plugins.x]\ny = 1"
    )
    put(tmp_path / "more.toml", "disabled_plugins = ['z']\n[plugins.cri]\nb = 2\nl = [1, 2]")
    assert read(main, TWO).document["plugins"] == {"cri": {"a": 1, "b": 2, "l": [1, 2]}, "x": {"y": 1}}
    assert read(main, ONE).document["plugins"] == {"cri": {"b": 2, "l": [1, 2]}, "x": {"y": 1}}


def test_one_file_may_be_left_out(tmp_path: Path) -> None:
    """Our own drop-in does not count as the node's."""
    ours = put(tmp_path / "d/ours.toml", "a = 1")
    main = put(tmp_path / "config.toml", "imports = ['d/*.toml']")
    assert "a" not in read(main, TWO, without=ours).document


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[", "cannot be read"),
        ("imports = 'x'", "a list of strings"),
        ("imports = ['none.toml']", "none.toml"),
    ],
)
def test_what_cannot_be_understood_is_named(tmp_path: Path, text: str, why: str) -> None:
    """Broken TOML, a wrong kind of value, a missing file."""
    with pytest.raises(InvalidInput, match=why):
        read(put(tmp_path / "config.toml", text), TWO)


def test_files_are_bounded(tmp_path: Path) -> None:
    """Neither a huge file nor a huge number of files is read."""
    with pytest.raises(InvalidInput, match="larger"):
        read(put(tmp_path / "huge.toml", "#" * (5 << 20)), TWO)
    for number in range(120):
        put(tmp_path / f"d/{number}.toml", "")
    with pytest.raises(InvalidInput, match="more than 100"):
        read(put(tmp_path / "config.toml", "imports = ['d/*.toml']"), TWO)
