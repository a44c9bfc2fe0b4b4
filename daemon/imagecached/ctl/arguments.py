"""What a command takes, as values, and argv read by them.

Not click and not argparse: a person or a benchmark waits for every start. CPU on a machine where a bare
interpreter takes 13 ms, medians: importing click is 33 ms more; argparse with one parser for the program and
one for a command 16 ms more, of which 10 are ``re`` and ``enum``; a whole pull with this 4 ms more.

The rules are the usual ones: ``--name value``, ``--name=value``, ``-n value``, ``-nvalue``, ``-ab`` for
two flags, ``--`` ends the options, the last of a repeated option counts. Wrong usage → UsageError.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, which would be the costliest import of all
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

PROGRAM: Final = "imagecachectl"


class UsageError(Exception):
    """``command`` cannot be called like that."""

    def __init__(self, command: Command, message: str) -> None:
        super().__init__(message)
        self.command = command


class HelpWanted(Exception):
    """Somebody asks what ``command`` is."""

    def __init__(self, command: Command) -> None:
        super().__init__(command.name)
        self.command = command


class Option:
    """``names`` as people type them, separated by spaces, the long one last; a flag if it has no ``metavar``.

    ``read`` makes the value of the text, or says in a ValueError what it expected. ``many``: it may be
    repeated, its value is a tuple.
    """

    __slots__ = ("default", "help", "key", "many", "metavar", "names", "read")

    def __init__(
        self, names: str, help_text: str, metavar: str = "", *,
        default: Any = None, many: bool = False, read: Callable[[str], Any] = str,
    ) -> None:  # fmt: skip
        self.names = names.split()
        self.key = self.names[-1].removeprefix("--").replace("-", "_")
        self.help = help_text
        self.metavar = metavar
        self.default = () if many else default if metavar else False
        self.many = many
        self.read = read


class Argument:
    """``shown`` says how many: ``NAME``, ``[NAME]``, ``NAME...`` or ``[NAME...]``; many are a tuple."""

    __slots__ = ("key", "many", "needed", "read", "shown")

    def __init__(self, key: str, shown: str, *, read: Callable[[str], Any] = str) -> None:
        self.key = key
        self.shown = shown
        self.many = "..." in shown
        self.needed = not shown.startswith("[")
        self.read = read


class Command:
    """``module`` of this package has a function of the command's ``name`` that takes what ``read`` gives.

    With ``mixed`` options may follow arguments; without, the first argument ends them.
    """

    __slots__ = ("arguments", "help", "mixed", "module", "name", "options")

    def __init__(
        self, name: str, module: str, help_text: str, *takes: Option | Argument, mixed: bool = True
    ) -> None:
        self.name = name
        self.module = module
        self.help = help_text
        self.options = [each for each in takes if isinstance(each, Option)]
        self.arguments = [each for each in takes if isinstance(each, Argument)]
        self.mixed = mixed

    def usage(self) -> str:
        """One line: how it is called."""
        shown = ("Usage:", PROGRAM, self.name, "[OPTIONS]", *(each.shown for each in self.arguments))
        return " ".join(word for word in shown if word)

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Values by key, of all options and arguments. UsageError, HelpWanted."""
        values: dict[str, Any] = {option.key: option.default for option in self.options}
        rest, words = list(arguments), []
        while rest:
            word = rest.pop(0)
            if word == "--":
                words += rest
                break
            if word.startswith("-") and word != "-":
                self._read_options(word, rest, values)
            elif self.mixed:
                words.append(word)
            else:
                words += [word, *rest]
                break
        self._read_arguments(words, values)
        return values

    def _read_options(self, word: str, rest: list[str], values: dict[str, Any]) -> None:
        """The options that ``word`` holds; the value of the last may be the first of ``rest``."""
        if word.startswith("--"):
            name, equals, text = word.partition("=")
            option = self._option(name)
            if equals and not option.metavar:
                raise UsageError(self, f"option {name} takes no value")
            self._set(option, name, text if equals else None, rest, values)
            return
        letters = word[1:]
        while letters:
            name, letters = f"-{letters[0]}", letters[1:]
            option = self._option(name)
            if option.metavar:
                self._set(option, name, letters or None, rest, values)
                return
            self._set(option, name, None, rest, values)

    def _option(self, name: str) -> Option:
        if name in ("-h", "--help"):
            raise HelpWanted(self)
        for option in self.options:
            if name in option.names:
                return option
        raise UsageError(self, f"no such option: {name}")

    def _set(
        self, option: Option, name: str, text: str | None, rest: list[str], values: dict[str, Any]
    ) -> None:
        if not option.metavar:
            values[option.key] = True
            return
        if text is None:
            if not rest:
                raise UsageError(self, f"option {name} needs a value: {option.metavar}")
            text = rest.pop(0)
        value = self._value(name, option.read, text)
        values[option.key] = (*values[option.key], value) if option.many else value

    def _read_arguments(self, words: list[str], values: dict[str, Any]) -> None:
        for argument in self.arguments:
            taken = words if argument.many else words[:1]
            words = words[len(taken) :]
            if argument.needed and not taken:
                raise UsageError(self, f"missing argument: {argument.shown}")
            read = [self._value(argument.shown, argument.read, word) for word in taken]
            values[argument.key] = tuple(read) if argument.many else read[0] if read else None
        if words:
            raise UsageError(self, f"unexpected argument: {words[0]}")

    def _value(self, name: str, read: Callable[[str], Any], text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise UsageError(self, f"{name}: {error}") from None


def one_of(*names: str) -> Callable[[str], str]:
    """Reads one of ``names``."""

    def read(text: str) -> str:
        if text not in names:
            *some, last = names
            choice = f"{', '.join(some)} or {last}" if some else last
            raise ValueError(f"expected {choice}, got {text}")
        return text

    return read


def natural(text: str) -> int:
    """Reads a number that is not negative."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"expected a number, got {text}")
    return int(text)
