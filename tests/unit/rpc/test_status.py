"""rpc: the table of codes is total, and the stubs are what the contract makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from grpclib import GRPCError, Status

from imagecached.errors import ERROR_CLASSES, ImagecachedError, NotFound
from imagecached.rpc.status import STATUS, translated

PROTO = Path("daemon/imagecached/rpc/_proto")
REPOSITORY = Path(__file__).resolve().parents[3]


def test_every_error_class_has_its_code() -> None:
    """None of them is UNKNOWN or OK, and no two reactions share one."""
    assert set(STATUS) == set(ERROR_CLASSES)
    assert len(set(STATUS.values())) == len(STATUS)
    assert not {Status.UNKNOWN, Status.OK, Status.CANCELLED} & set(STATUS.values())


def test_messages_of_ours_travel_and_others_do_not() -> None:
    """An unforeseen error is told calmly."""
    assert translated(NotFound("no x"), "Stat").args[:2] == (Status.NOT_FOUND, "no x")
    calm = translated(ValueError("secret"), "Stat")
    assert calm.status is Status.INTERNAL
    assert "secret" not in (calm.message or "")
    own = GRPCError(Status.INVALID_ARGUMENT, "x")
    assert translated(own, "Stat") is own
    assert translated(ImagecachedError("odd"), "Stat").status is Status.INTERNAL


@pytest.mark.parametrize("name", ["snapshots_pb2.py", "snapshots_pb2.pyi", "snapshots_grpc.py"])
def test_the_stubs_are_those_of_the_contract(name: str, tmp_path: Path) -> None:
    """scripts/proto would change nothing."""
    out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpclib_python")]
    plugin = f"--plugin=protoc-gen-grpclib_python={Path(sys.executable).parent}/protoc-gen-grpclib_python"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "daemon", plugin, *out]
    subprocess.run([*command, PROTO / "snapshots.proto"], cwd=REPOSITORY, check=True)
    made = tmp_path / PROTO.relative_to("daemon") / name
    assert made.read_text() == (REPOSITORY / PROTO / name).read_text()
