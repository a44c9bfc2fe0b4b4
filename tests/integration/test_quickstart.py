"""scripts/quickstart, as a newcomer runs it: without arguments, twice."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

PROJECT: Final = Path(__file__).resolve().parents[2]


@pytest.mark.root
@pytest.mark.timeout(240)
def test_quickstart_shows_a_container_and_leaves_nothing(tmp_path: Path) -> None:
    """Both images become ready, both containers speak, and afterwards neither file nor mount is left."""
    for _ in range(2):
        done = subprocess.run(
            [PROJECT / "scripts/quickstart"],
            env={**os.environ, "IMAGECACHED_DEMO_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Hello, world!" in done.stdout
        assert "A shell from a prepared snapshot" in done.stdout
        table = [line for line in done.stdout.splitlines() if "demo/hello:1" in line and "Ready" in line]
        assert any("100%" in line for line in table)
        assert "imagecache.eci.alibabacloud.com/quickstart created" in done.stdout
        assert any(line.startswith("quickstart ") and "Ready" in line for line in done.stdout.splitlines())
        assert list(tmp_path.iterdir()) == []


def test_quickstart_explains_itself() -> None:
    """An option it does not know gives the usage, and exit code 2."""
    done = subprocess.run(
        [PROJECT / "scripts/quickstart", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "scripts/quickstart IMAGE" in done.stdout
