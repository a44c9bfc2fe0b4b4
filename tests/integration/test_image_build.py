"""daemonset/Dockerfile: its steps, run where no container builder is needed.

A private mount namespace with an overlay over this host's root stands for the first stage. That host has what
the stage installs by apt, so only that step is left out (APT=no).
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest

PROJECT: Final = Path(__file__).resolve().parents[2]
_STAGE: Final = """
set -eu
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" none "$1/root"
cd "$1/root"
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs none tmp
rm -rf opt/imagecached src
mkdir src
git -C "$2" ls-files -z -- $3 | tar -C "$2" --null -cf - -T - | tar -xf - -C src
printf '%s' "$4" >tmp/steps
chroot . /bin/sh -eu /tmp/steps
"""

# Installing the locked requirements takes as long as the network and the disk take.
pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


def _steps() -> str:
    text = (PROJECT / "daemonset/Dockerfile").read_text()
    joined = re.sub(r"^#.*\n", "", text, flags=re.M).replace("\\\n", "")
    runs = re.findall(r"^RUN (.*)$", joined.split("\nFROM ")[1], re.M)
    assert len(runs) == 2
    return "\n".join(["APT=no PIP=", "cd /src", *runs])


def _copied() -> str:
    """What the builder is sent: every file that the ignore list lets through."""
    lines = (PROJECT / "daemonset/Dockerfile.dockerignore").read_text().splitlines()
    kept = (line.removeprefix("!") for line in lines if line.startswith("!"))
    return " ".join(name for name in kept if (PROJECT / name).exists())


def test_the_image_holds_a_program_that_answers(tmp_path: Path) -> None:
    """The steps end well with nothing but what is copied, and what they make runs without the sources."""
    check = """
rm -rf /src /builder
cd /
PATH=/opt/imagecached/venv/bin:$PATH
imagecached version
imagecached config >/dev/null
imagecachectl --help >/dev/null
! python -m pip --version 2>/dev/null
for script in node-setup host-containerd; do test -x /opt/imagecached/$script; done
command -v nsenter setpriv umount >/dev/null
"""
    command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", _STAGE, "stage"]
    done = subprocess.run(
        [*command, tmp_path, PROJECT, _copied(), f"{_steps()}\n{check}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1].startswith("imagecached 0.")
