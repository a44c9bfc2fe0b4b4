"""imagecachectl: how argv is read, and that the table of commands and their functions agree."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.ctl.arguments import Argument, Command, HelpWanted, Option, UsageError, natural, one_of
from imagecached.ctl.commands import COMMANDS
from imagecached.ctl.program import Call
from tests.unit.ctl.conftest import Ctl

COMMAND = Command(
    "do", "", "Does it.",
    Option("-f --flag", ""), Option("-g --go-on", ""),
    Option("-n --number", "", "N", default=1, read=natural),
    Option("-e --each", "", "X", many=True),
    Argument("kind", "KIND", read=one_of("a", "b", "c")),
    Argument("names", "[NAME...]"),
)  # fmt: skip
NOTHING: dict[str, Any] = {"flag": False, "go_on": False, "number": 1, "each": (), "kind": "a", "names": ()}


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("a", {}),
        ("-f a", {"flag": True}),
        ("a --go-on", {"go_on": True}),
        ("a -fg x", {"flag": True, "go_on": True, "names": ("x",)}),
        ("-n 7 a", {"number": 7}),
        ("-n7 a", {"number": 7}),
        ("-fn7 a", {"flag": True, "number": 7}),
        ("-fn 7 a", {"flag": True, "number": 7}),
        ("--number=7 a", {"number": 7}),
        ("a --number 7 --number 8", {"number": 8}),
        ("a -e 1 --each=-f -e -g", {"each": ("1", "-f", "-g")}),
        ("a -- -f --", {"names": ("-f", "--")}),
        ("a - x", {"names": ("-", "x")}),
    ],
)
def test_the_usual_rules(line: str, changes: dict[str, Any]) -> None:
    """As everywhere."""
    assert COMMAND.read(line.split()) == NOTHING | changes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "missing argument: KIND"),
        ("d", "KIND: expected a, b or c, got d"),
        ("a -x", "no such option: -x"),
        ("a -fx", "no such option: -x"),
        ("a --numb 7", "no such option: --numb"),
        ("a --flag=yes", "option --flag takes no value"),
        ("a -n", "option -n needs a value: N"),
        ("a -n -1", "-n: expected a number, got -1"),
        ("a --number=", "--number: expected a number, got "),
    ],
)
def test_wrong_usage_is_named(line: str, message: str) -> None:
    """With what was wrong."""
    with pytest.raises(UsageError) as caught:
        COMMAND.read(line.split())
    assert (str(caught.value), caught.value.command) == (message, COMMAND)


def test_too_many_arguments() -> None:
    """The first that nobody wants is named; one that is not needed may be left out."""
    command = Command("do", "", "", Argument("one", "ONE"), Argument("two", "[TWO]"))
    assert command.read(["x"]) == {"one": "x", "two": None}
    assert command.read(["x", "y"]) == {"one": "x", "two": "y"}
    with pytest.raises(UsageError, match="unexpected argument: z"):
        command.read(["x", "y", "z"])


def test_what_a_container_gets_is_not_ours() -> None:
    """Unless options may be mixed with arguments, the first argument ends them."""
    values = COMMANDS["run"].read(["-e", "A=1", "image", "sh", "-e", "--", "-h"])
    assert (values["env"], values["image"], values["command"]) == (
        ("A=1",),
        "image",
        ("sh", "-e", "--", "-h"),
    )


@pytest.mark.parametrize("line", ["-h", "--help", "d -h", "a -fh", "-n 7 --help"])
def test_help_comes_first(line: str) -> None:
    """Whatever is wrong or missing beside it."""
    with pytest.raises(HelpWanted):
        COMMAND.read(line.split())


@given(st.lists(st.sampled_from(["-f", "-n", "--number", "=", "--", "a", "-", "-e"]) | st.text(max_size=4)))
def test_any_line_is_read_or_refused(words: list[str]) -> None:
    """Nothing else happens."""
    try:
        values = COMMAND.read(words)
    except (UsageError, HelpWanted):
        return
    assert values.keys() == NOTHING.keys()


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_every_command_has_its_function(command: Command) -> None:
    """That takes the call and what the table says."""
    function = getattr(import_module(f"imagecached.ctl.{command.module}"), command.name.replace("-", "_"))
    call, *others = inspect.signature(function).parameters.values()
    assert (call.name, call.annotation) == ("call", Call.__name__)
    keys = {option.key for option in command.options} | {argument.key for argument in command.arguments}
    assert {each.name for each in others} == keys - {"output"}
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in others)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(alone: Ctl, name: str) -> None:
    """Usage first, then what it does, then every option; nothing is wider than a terminal."""
    ended = alone(name, "--help")
    assert ended.code == 0
    assert ended.out.startswith(f"Usage: imagecachectl {name} [OPTIONS]")
    assert ended == alone(name, "-h")
    for option in COMMANDS[name].options:
        assert ", ".join(option.names) in ended.out
    assert max(map(len, ended.out.splitlines())) <= 100
