"""users: the User of an image config means what it means to containerd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.containers.users import User, resolve
from imagecached.errors import InvalidInput

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\n# no account\nbroken:x\napp:x:1000:1001::/home/app:\n1234:x:77:78::/:\n"
)
GROUP = b"root:x:0:root\nwheel:x:10:root,app\napp:x:1001:\nshort:x:55\nextra:x:2000:app,other\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", User(0, 0, (0, 10))),
        ("root", User(0, 0, (0, 10))),
        ("0", User(0, 0, (0, 10))),
        ("app", User(1000, 1001, (1001, 10, 2000))),
        ("1000", User(1000, 1001, (1001, 10, 2000))),
        ("app:wheel", User(1000, 10, (10, 2000))),
        ("app:5", User(1000, 5, (5, 10, 2000))),
        ("4321", User(4321, 0, (0,))),
        ("4321:4322", User(4321, 4322, (4322,))),
        ("1234", User(1234, 0, (0,))),  # a number is an id and never a name
        ("app:short", User(1000, 55, (55, 10, 2000))),
        ("app:", User(1000, 1001, (1001, 10, 2000))),
    ],
)
def test_names_and_numbers(text: str, expected: User) -> None:
    """Primary group first, then those that list the user, in the file's order."""
    assert resolve(text, PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    "text", ["nobody", "app:nogroup", ":app", "2147483648", "0:99999999999999999999", "-1", "²"]
)
def test_what_the_image_does_not_know(text: str) -> None:
    """A user that cannot be told is refused: root instead would be wrong."""
    with pytest.raises(InvalidInput):
        resolve(text, PASSWD, GROUP)


@pytest.mark.parametrize(("text", "uid"), [("", 0), ("0", 0), ("65532:65532", 65532)])
def test_an_image_without_files(text: str, uid: int) -> None:
    """Numbers and the default need no passwd; a name does."""
    assert resolve(text, b"", b"").uid == uid
    with pytest.raises(InvalidInput):
        resolve("root", b"", b"")


@given(st.text(), st.binary(), st.binary())
def test_hostile_files(text: str, passwd: bytes, group: bytes) -> None:
    """Whatever the files hold, the answer is in range or InvalidInput."""
    try:
        user = resolve(text, passwd, group)
    except InvalidInput:
        return
    assert all(0 <= number < 1 << 31 for number in (user.uid, user.gid, *user.groups))


def test_names_in_any_bytes() -> None:
    """A name that is no UTF-8 does not break the others, and huge ids are passed over."""
    assert resolve("app", b"\xff:x:5:5::/:\nhuge:x:99999999999:0::/:\n" + PASSWD, b"").uid == 1000
