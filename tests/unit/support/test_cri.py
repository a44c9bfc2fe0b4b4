"""The CRI messages of the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

PROJECT: Final = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", ["cri_pb2.py", "cri_pb2.pyi"])
def test_the_messages_are_those_of_the_contract(name: str, tmp_path: Path) -> None:
    """scripts/proto would change nothing."""
    folder = Path("tests/support/_proto")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", f"--python_out={tmp_path}"]
    subprocess.run([*command, f"--pyi_out={tmp_path}", folder / "cri.proto"], cwd=PROJECT, check=True)
    assert (tmp_path / folder / name).read_text() == (PROJECT / folder / name).read_text()
