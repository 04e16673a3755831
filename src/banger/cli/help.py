"""Help, rendered: the words of `help_texts` around the flags of the tables."""

from __future__ import annotations

from banger.cli import catalog
from banger.cli.help_texts import COMMANDS, GROUPS, NEXT, TOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from banger.cli.catalog import Command, Parameter

_WIDTH = 100
_COLUMN = 34


def render(name: str) -> str:
    """The help of a command, a group, or (empty name) of everything. Raises KeyError."""
    if not name:
        return render_top()
    group, _, command = name.partition(" ")
    if group in GROUPS and (not command or name not in catalog.COMMANDS):
        return render_group(group)
    return render_command(catalog.find(name))


def render_top() -> str:
    lines = [TOP, "", "Commands:"]
    lines += [_row(f"banger {group}", _first_sentence(GROUPS[group])) for group in catalog.GROUPS]
    lines += [_row("banger ps", "the same as banger vm list"), _row("banger cp", "the same as banger vm cp")]
    visible = [name for name in catalog.COMMANDS if " " not in name and not name.startswith("_")]
    lines += [_row(f"banger {name}", _first_sentence(catalog.find(name).summary)) for name in visible]
    return "\n".join([*lines, "", "banger COMMAND --help says more.", ""])


def render_group(group: str) -> str:
    lines = [GROUPS[group], "", "Commands:"]
    for name in catalog.COMMANDS:
        if name.startswith(group + " "):
            lines.append(_row(f"banger {name}", _first_sentence(catalog.find(name).summary)))
    return "\n".join([*lines, "", f"banger {group} COMMAND --help says more.", f"Next: {NEXT[group]}", ""])


def render_command(command: Command) -> str:
    lines = [f"Usage: {_usage(command)}", "", *_wrap(command.summary, _WIDTH)]
    if about := COMMANDS.get(command.name):
        lines += ["", about]
    positionals = command.positionals
    if positionals:
        lines += ["", "Arguments:", *(line for p in positionals for line in _entry(p.metavar, p))]
    lines += ["", "Flags:"]
    for parameter in command.parameters:
        if not parameter.positional:
            lines += _entry(_flag_words(parameter), parameter)
    return "\n".join([*lines, _row("-h, --help", "this text"), ""])


def _usage(command: Command) -> str:
    words = [f"banger {command.name} [FLAGS]"]
    for parameter in command.positionals:
        word = parameter.metavar + ("..." if command.many else "")
        words.append(word if parameter.required else f"[{word}]")
    if command.rest:
        words.append(f"-- {command.rest}..." if command.rest_required else f"[-- {command.rest}...]")
    return " ".join(words)


def _flag_words(parameter: Parameter) -> str:
    words = f"--{parameter.flag}" if parameter.type == "bool" else f"--{parameter.flag} {parameter.metavar}"
    if parameter.negatable:
        words = f"--[no-]{parameter.flag}"
    return f"-{parameter.short}, {words}" if parameter.short else f"    {words}"


def _entry(left: str, parameter: Parameter) -> list[str]:
    text = parameter.help
    if parameter.default not in (None, False):
        shown = f"{parameter.default:g}s" if isinstance(parameter.default, float) else parameter.default
        text += f" (default {shown})"
    first, *more = _wrap(text, _WIDTH - _COLUMN) or [""]
    return [_row(left, first), *(" " * (_COLUMN + 2) + line for line in more)]


def _row(left: str, right: str) -> str:
    return f"  {left:<{_COLUMN}}{right}" if len(left) < _COLUMN else f"  {left}\n  {'':<{_COLUMN}}{right}"


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split()).split(". ")[0].rstrip(".")


def _wrap(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines
