"""Paths: made and read back in one place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.oci.digest import Digest
from imagecached.store.layout import Layout

LAYOUT = Layout(Path("/var/lib/imagecached"))
HEX = "ab" + "0" * 62


def test_a_layer_file_lies_under_its_digest() -> None:
    """The path that ARCHITECTURE.md draws."""
    expected = Path(f"/var/lib/imagecached/layers/sha256/ab/{HEX}.erofs")
    assert LAYOUT.layer(Digest.parse(f"sha256:{HEX}")) == expected


@given(st.binary(max_size=8), st.sampled_from(["sha256", "sha512"]))
def test_a_digest_is_read_back_from_its_path(data: bytes, algorithm: str) -> None:
    """Layer file and seam alike, given as Path or text."""
    digest = Digest.of(data, algorithm)
    assert LAYOUT.digest_of(LAYOUT.layer(digest)) == digest
    assert LAYOUT.digest_of(str(LAYOUT.seam(digest))) == digest


@pytest.mark.parametrize(
    "path",
    [
        f"/var/lib/imagecached/layers/sha256/cd/{HEX}.erofs",
        f"/var/lib/imagecached/layers/sha256/ab/{HEX}",
        f"/var/lib/imagecached/layers/sha256/ab/{HEX}.erofs.tmp",
        f"/var/lib/imagecached/layers/md5/ab/{HEX}.erofs",
        f"/var/lib/imagecached/other/sha256/ab/{HEX}.erofs",
        f"/elsewhere/layers/sha256/ab/{HEX}.erofs",
        f"/var/lib/imagecached/ingest/{HEX}.erofs",
        "/",
    ],
)
def test_any_other_path_has_no_digest(path: str) -> None:
    """What mountinfo names besides our files is ignored."""
    assert LAYOUT.digest_of(path) is None


def test_digests_of_many_paths() -> None:
    """Foreign paths among them do not matter."""
    digest = Digest.of(b"x")
    assert LAYOUT.digests_of([LAYOUT.layer(digest), "/etc/passwd"]) == {digest}


def test_unfinished_files_and_trash_have_fresh_names() -> None:
    """Two asked for at once do not meet."""
    names = {LAYOUT.new_ingest() for _ in range(100)} | {LAYOUT.new_trash() for _ in range(100)}
    assert len(names) == 200
    assert {name.parent for name in names} == {LAYOUT.ingest}
