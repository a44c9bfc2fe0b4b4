"""containerd: what the codes of its answers mean, and the stubs are what the contract makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from grpclib import GRPCError, Status

from imagecached.containerd.failures import ERRORS, translated
from imagecached.errors import ImagecachedError, NotFound, OutOfSpace, Unavailable

PROTO = Path("daemon/imagecached/containerd/_proto")
REPOSITORY = Path(__file__).resolve().parents[3]


def test_every_code_has_its_error() -> None:
    """The table is total; what may be tried again is retryable."""
    assert set(ERRORS) == set(Status)
    for status in (Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.ABORTED, Status.RESOURCE_EXHAUSTED):
        assert ERRORS[status].retryable


def test_the_words_say_what_the_code_does_not() -> None:
    """A full disk and a server that ends have no codes of their own; words are one line of bounded length."""
    full = GRPCError(Status.UNKNOWN, "write /x: no space left on device")
    assert isinstance(translated(full, "Content/Write"), OutOfSpace)
    ending = GRPCError(Status.UNKNOWN, "the client connection is closing")
    assert isinstance(translated(ending, "Content/Write"), Unavailable)
    odd = translated(GRPCError(Status.UNKNOWN, "a\nb" + "c" * 10_000), "Images/Get")
    assert type(odd) is ImagecachedError
    assert str(odd).startswith("containerd Images/Get: a b")
    assert len(str(odd)) < 600
    assert str(translated(GRPCError(Status.NOT_FOUND), "Images/Get")) == "containerd Images/Get: NOT_FOUND"
    assert isinstance(translated(GRPCError(Status.NOT_FOUND), "Images/Get"), NotFound)


@pytest.mark.parametrize("name", ["containerd_pb2.py", "containerd_pb2.pyi"])
def test_the_stubs_are_those_of_the_contract(name: str, tmp_path: Path) -> None:
    """scripts/proto would change nothing."""
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "daemon", *out]
    subprocess.run([*command, PROTO / "containerd.proto"], cwd=REPOSITORY, check=True)
    made = tmp_path / PROTO.relative_to("daemon") / name
    assert made.read_text() == (REPOSITORY / PROTO / name).read_text()
