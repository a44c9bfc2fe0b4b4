"""spec: the runtime configuration of a run."""

from __future__ import annotations

from typing import Any

import pytest

from imagecached.containers.spec import Host, Run, runtime_spec
from imagecached.containers.users import User
from imagecached.errors import InvalidInput
from imagecached.oci.documents import ImageConfig
from imagecached.oci.platform import Platform

HOST = Host("node-1", {"/etc/hosts": "/run/hosts"})


def process(run: Run | None = None, **image: Any) -> dict[str, Any]:
    """The process of an image with these settings."""
    config = ImageConfig(platform=Platform("linux", "amd64"), diff_ids=(), raw=b"", **image)
    made: dict[str, Any] = runtime_spec("0a", config, run or Run(), User(1, 2, (2, 3)), HOST)["process"]
    return made


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "arguments", "expected"),
    [
        ((), ("sh",), (), ["sh"]),
        (("/entry",), ("a", "b"), (), ["/entry", "a", "b"]),
        (("/entry",), ("a", "b"), ("c",), ["/entry", "c"]),
        (("/entry",), (), (), ["/entry"]),
        ((), ("sh",), ("ls", "-l"), ["ls", "-l"]),
    ],
)
def test_the_command(
    entrypoint: tuple[str, ...], cmd: tuple[str, ...], arguments: tuple[str, ...], expected: list[str]
) -> None:
    """Arguments replace Cmd and never the Entrypoint."""
    assert process(Run(arguments=arguments), entrypoint=entrypoint, cmd=cmd)["args"] == expected


def test_nothing_to_run() -> None:
    """Neither the image nor the caller names a command."""
    with pytest.raises(InvalidInput, match="give one"):
        process()


def test_the_environment() -> None:
    """A PATH is always there; the caller's settings go over the image's, which go over ours."""
    image = ("PATH=/image", "A=1", "B=x=y", "nonsense", "A=2")
    assert process(Run(environment={"B": "", "C": "3"}), cmd=("x",), env=image)["env"] == [
        "PATH=/image",
        "A=2",
        "B=",
        "C=3",
    ]
    assert process(cmd=("x",))["env"][0].startswith("PATH=/usr/local/sbin:")
    assert "TERM=xterm" in process(Run(terminal=True), cmd=("x",))["env"]
    assert "TERM=dumb" in process(Run(terminal=True), cmd=("x",), env=("TERM=dumb",))["env"]


@pytest.mark.parametrize(
    ("image", "wanted", "expected"), [("", "", "/"), ("/a", "", "/a"), ("/a", "/b", "/b"), ("", "/b", "/b")]
)
def test_the_working_directory(image: str, wanted: str, expected: str) -> None:
    """The caller's, else the image's, else the root."""
    assert process(Run(working_dir=wanted), cmd=("x",), working_dir=image)["cwd"] == expected


def test_a_relative_working_directory() -> None:
    """Refused here, with a better word than the runtime's."""
    with pytest.raises(InvalidInput, match="not absolute"):
        process(cmd=("x",), working_dir="a")


@pytest.mark.parametrize(
    "settings",
    [
        {"arguments": ("a\0b",)},
        {"environment": {"A": "\0"}},
        {"environment": {"": "1"}},
        {"environment": {"A=B": "1"}},
    ],
)
def test_what_no_process_can_be_given(settings: dict[str, Any]) -> None:
    """NUL ends a string for the kernel; a name with = would be another name."""
    with pytest.raises(InvalidInput):
        Run(**settings)


def test_user_and_privileges() -> None:
    """The resolved user with all groups, no new privileges, few capabilities."""
    made = process(cmd=("x",))
    assert made["user"] == {"uid": 1, "gid": 2, "additionalGids": [2, 3]}
    assert made["noNewPrivileges"] is True
    assert "CAP_SYS_ADMIN" not in made["capabilities"]["bounding"]
    assert len(made["capabilities"]["bounding"]) == 14
    assert "inheritable" not in made["capabilities"]


def test_isolation_and_the_hosts_files() -> None:
    """Every namespace but the network's; hosts is bound read-only, since the network is the host's."""
    config = ImageConfig(platform=Platform("linux", "amd64"), diff_ids=(), raw=b"", cmd=("x",))
    spec = runtime_spec("0a", config, Run(), User(), HOST)
    assert [entry["type"] for entry in spec["linux"]["namespaces"]] == ["pid", "ipc", "uts", "mount"]
    assert spec["hostname"] == "node-1"
    assert spec["linux"]["cgroupsPath"] == "/imagecached/0a"
    bound = spec["mounts"][-1]
    assert (bound["destination"], bound["source"], "ro" in bound["options"]) == (
        "/etc/hosts",
        "/run/hosts",
        True,
    )
    assert [mount["destination"] for mount in spec["mounts"]][:6] == [
        "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys",
    ]  # fmt: skip
