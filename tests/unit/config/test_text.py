"""config: what is printed is what is read, and what is shipped is what is printed."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from imagecached.config import Config, LimitsSection, load, render
from imagecached.config.sections import KEYS
from imagecached.errors import InvalidInput
from imagecached.layers import limits

_REPOSITORY = Path(__file__).parents[3]

scalars = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["/a", "a:1", "info", "linux/arm64"])
)
values = scalars | st.lists(scalars, max_size=3)


def table(section: str) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    """The section with some of its keys and perhaps a wrong one."""
    return st.tuples(
        st.just(section),
        st.dictionaries(st.sampled_from(list(KEYS[section])) | st.text(max_size=3), values, max_size=3),
    )


tables = st.sampled_from(list(KEYS)).flatmap(table)
documents = st.lists(tables | st.tuples(st.text(max_size=5), values), max_size=3).map(dict)


def toml(value: Any) -> str:
    """Any value of the strategies above as TOML, with every key quoted."""
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value) + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return str(value)


def test_the_shipped_file_is_the_printed_one() -> None:
    """systemd/config.toml is the output of `imagecached config` without any configuration."""
    assert (_REPOSITORY / "systemd/config.toml").read_text() == render(Config())


def test_every_key_is_described() -> None:
    """The printed file has a comment over every key."""
    lines = render(Config()).splitlines()
    printed = [line.split(" = ")[0] for line in lines if " = " in line and not line.startswith("#")]
    assert printed == [key for section in KEYS.values() for key in section]
    assert all(
        lines[index - 1].startswith("# ")
        for index, line in enumerate(lines)
        if not line.startswith(("#", "[")) and line
    )


def test_limits_are_those_of_the_layers() -> None:
    """[limits] has the names and the defaults of what the layers enforce."""
    assert msgspec.structs.asdict(LimitsSection()) == dataclasses.asdict(limits.Limits())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents)
@example(document={"registry": {"plain_http": ['\x7f\x00"\\\U0001f600']}})
def test_any_file_gives_a_configuration_or_a_named_refusal(document: dict[str, Any], tmp_path: Path) -> None:
    """A configuration that prints and reads back to itself, or one line that names the file and the key."""
    path = tmp_path / "config.toml"
    path.write_text("".join(f"{toml(key)} = {toml(value)}\n" for key, value in document.items()))
    try:
        config = load(path, environ={})
    except InvalidInput as error:
        names = [
            name
            for section, table in document.items()
            for name in (section, *(table if isinstance(table, dict) else ()))
        ]
        assert "\n" not in str(error)  # noqa: PT017  the same
        assert str(path) in str(error)  # noqa: PT017  either outcome is right
        assert any(name in str(error) or repr(name) in str(error) for name in names)  # noqa: PT017  the same
        return
    path.write_text(render(config))
    assert load(path, environ={}) == config


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.text().map(str.encode) | st.binary())
def test_any_bytes_give_a_configuration_or_a_refusal(content: bytes, tmp_path: Path) -> None:
    """Nothing but InvalidInput comes out of a file that is not TOML."""
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with contextlib.suppress(InvalidInput):
        load(path, environ={})
