"""The command line as a command and its values. Table-driven; knows no command by name.

Grammar: flags and positionals in any order; `--flag VALUE`, `--flag=VALUE`, `-f VALUE`, `-fVALUE`, `-abc` for
switches; `--` ends the flags. In a command with a rest (`CMD`), `--` begins it, and so does the first word
after all positionals. A flag that was not given is not in the values: defaults belong to the daemon.
"""

from __future__ import annotations

from banger.cli import catalog
from banger.cli.values import parse_value, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.catalog import Command, Parameter

_SHOW, _EXEC = ("show", "status"), ("exec -it",)
_SYNONYMS = {
    "inspect": _SHOW,
    "info": _SHOW,
    "describe": _SHOW,
    "remove": ("delete",),
    "attach": _EXEC,
    "shell": _EXEC,
    "console": ("logs",),
    "resize": ("set",),
    "edit": ("set",),
    "label": ("set",),
    "launch": ("run",),
    "op": ("operation",),
    "ops": ("operation",),
}  # what other tools call a command, and what it is called here; the first that its group has


class HelpAsked(Exception):
    """Somebody wants to read instead of run: `name` is a command, a group, or empty."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Arguments:
    """What was given on the command line, by parameter name."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.values: dict[str, Any] = {}
        self.references: list[str] = []
        self.rest: list[str] = []

    def has(self, name: str) -> bool:
        """Whether a switch was given."""
        return bool(self.values.get(name))

    def get(self, name: str, default: Any = None) -> Any:
        return self.values.get(name, default)

    def params(self, method: str | None = None) -> dict[str, Any]:
        """The values that are parameters of the method (by default the command's own)."""
        known = self.command.method_names(method or self.command.method)
        return {name: value for name, value in self.values.items() if name in known}


def parse(words: list[str]) -> Arguments:
    """Raises HelpAsked, or Failure with a hint for what cannot be understood."""
    name, rest = _find_name(words)
    arguments = Arguments(catalog.find(name))
    _Reader(arguments, rest).read()
    return arguments


def _find_name(words: list[str]) -> tuple[str, list[str]]:
    if words[:1] == ["vm"] and words[1:] and words[1] in catalog.OF_VMS:
        words = words[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        named = " ".join(words[1:3])
        raise HelpAsked(catalog.ALIASES.get(named, named))
    first = words[0]
    if first in ("--version", "-V"):
        return "version", words[1:]
    if first in catalog.GROUPS:
        if len(words) == 1 or words[1] in ("-h", "--help", "help"):
            raise HelpAsked(first)
        first = f"{first} {words[1]}"
    name = catalog.ALIASES.get(first, first)
    if name not in catalog.COMMANDS:
        raise _unknown_command(first)
    return name, words[1 + first.count(" ") :]


class _Reader:
    """One pass over the words of one command."""

    def __init__(self, arguments: Arguments, words: list[str]) -> None:
        self._arguments = arguments
        self._command = arguments.command
        self._words = words
        self._next = 0
        self._waiting = self._command.positionals
        self._flags = {f"--{p.flag}": p for p in self._command.parameters if p.flag}
        self._flags |= {f"-{p.short}": p for p in self._command.parameters if p.short}
        self._negations = {f"--no-{p.flag}": p for p in self._command.parameters if p.negatable}

    def read(self) -> None:
        while self._next < len(self._words):
            word = self._words[self._next]
            self._next += 1
            if word == "--":
                self._take_rest()
            elif word.startswith("--"):
                self._read_long(word)
            elif word.startswith("-") and len(word) > 1:
                self._read_short(word)
            else:
                self._read_positional(word)
        self._check_complete()

    def _read_long(self, word: str) -> None:
        if word == "--help":
            raise HelpAsked(self._command.name)
        flag, equals, value = word.partition("=")
        negated = flag in self._negations
        parameter = self._negations[flag] if negated else self._get_flag(flag)
        if parameter.type == "bool":
            if equals:
                raise refuse(f"{flag} takes no value", hint=f"write {flag} alone")
            self._set_switch(parameter, not negated)
        else:
            self._set(parameter, value if equals else self._take_value(parameter))

    def _read_short(self, word: str) -> None:
        letters = word[1:]
        while letters:
            if letters[0] == "h" and "-h" not in self._flags:
                raise HelpAsked(self._command.name)
            parameter = self._get_flag("-" + letters[0])
            letters = letters[1:]
            if parameter.type == "bool":
                self._set_switch(parameter, True)
                continue
            self._set(parameter, letters or self._take_value(parameter))
            return

    def _read_positional(self, word: str) -> None:
        if self._waiting:
            parameter = self._waiting.pop(0)
            if self._command.many:
                self._arguments.references.append(word)
                self._waiting.append(parameter)
            else:
                self._arguments.values[parameter.name] = parse_value(parameter, word)
        elif self._command.rest and self._command.positionals:
            self._next -= 1
            self._take_rest()
        elif self._command.rest:
            raise refuse(
                f"{word!r} is not expected here",
                hint=f"use -- before the command: banger {self._command.name} -- {word}",
            )
        else:
            raise refuse(f"{word!r} is one argument too many", hint=_see_help(self._command))

    def _take_rest(self) -> None:
        words = self._words[self._next :]
        self._next = len(self._words)
        if not self._command.rest:
            for word in words:
                self._read_positional(word)
            return
        self._arguments.rest = words

    def _take_value(self, parameter: Parameter) -> str:
        if self._next >= len(self._words):
            raise refuse(f"--{parameter.flag} needs a value", hint=f"--{parameter.flag} {parameter.metavar}")
        self._next += 1
        return self._words[self._next - 1]

    def _set_switch(self, parameter: Parameter, on: bool) -> None:
        if self._arguments.values.setdefault(parameter.name, on) is not on:
            raise refuse(
                f"--{parameter.flag} and --no-{parameter.flag} contradict each other", hint="give one"
            )

    def _set(self, parameter: Parameter, word: str) -> None:
        value = parse_value(parameter, word)
        values = self._arguments.values
        if parameter.type == "list":
            values.setdefault(parameter.name, []).append(value)
        elif parameter.type == "map":
            values.setdefault(parameter.name, {})[value[0]] = value[1]
        elif parameter.name in values:
            raise refuse(f"--{parameter.flag} is given twice", hint="give it once")
        else:
            values[parameter.name] = value

    def _get_flag(self, flag: str) -> Parameter:
        try:
            return self._flags[flag]
        except KeyError:
            known = [name for name in (*self._flags, *self._negations) if name.startswith("--")]
            close = _closest(flag, known)
            hint = f"did you mean {close}?" if close else self._hint_at_flags()
            raise refuse(f"banger {self._command.name} has no flag {flag}", hint=hint) from None

    def _hint_at_flags(self) -> str:
        """A flag behind a word is likely the word's own."""
        if self._command.rest and len(self._waiting) < len(self._command.positionals):
            return f"use -- before the command: banger {self._command.name} -- {self._command.rest}"
        return _see_help(self._command)

    def _check_complete(self) -> None:
        missing = [p for p in self._waiting if p.required]
        if self._command.many and self._arguments.references:
            missing = []
        if missing:
            raise refuse(f"{missing[0].metavar} is missing: {missing[0].help}", hint=_see_help(self._command))
        if self._command.rest_required and not self._arguments.rest:
            raise refuse(
                f"{self._command.rest} is missing: the command to run", hint=_see_help(self._command)
            )


def _unknown_command(name: str) -> Exception:
    known = [command for command in [*catalog.COMMANDS, *catalog.GROUPS] if not command.startswith("_")]
    close = (
        _find_synonym(name)
        or _closest(name, known)
        or (f"vm {name}" if f"vm {name}" in {*known, *catalog.ALIASES} else None)
    )
    hint = f"did you mean: banger {close}" if close else "banger --help lists all commands"
    return refuse(f"there is no command {name!r}", hint=hint)


def _find_synonym(name: str) -> str | None:
    """The command that other tools call so. A word without its group is one of VMs."""
    group, _, word = name.rpartition(" ")
    for meant in _SYNONYMS.get(word, ()):
        if meant in catalog.GROUPS and not group:
            return meant
        command = f"{group or 'vm'} {meant}"
        if " ".join(command.split()[:2]) in catalog.COMMANDS:
            return command
    return "vm prune --dry-run" if name in ("system prune", "prune") else None


def _closest(word: str, known: list[str]) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.7)), None)


def _see_help(command: Command) -> str:
    return f"banger {command.name} --help"
