"""Shell completion: three short scripts that all ask `banger __complete`, and the answer.

Words come from the command tables; names of VMs, images, kernels and operations from the daemon, if it runs.
Completion never starts it, never fails, and never prints anything but candidates.
"""

from __future__ import annotations

import sys

from banger.cli import catalog
from banger.client.blocking import find_connection
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from banger.cli.catalog import Command, Parameter
    from banger.cli.parser import Arguments

_NAMED = {
    "vm": "vm",
    "vms": "vm",
    "image": "image",
    "kernel": "kernel",
    "operation": "operation",
    "session": "session",
    "agent": "agent",
}  # by parameter

SCRIPTS = {
    "bash": """\
_banger() {
    local word="${COMP_WORDS[COMP_CWORD]}" line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("${line%%$'\\t'*}")
    done < <(banger __complete -- "${COMP_WORDS[@]:1:COMP_CWORD-1}" "$word" 2>/dev/null)
    [[ "${COMPREPLY[0]}" != *: ]] || compopt -o nospace 2>/dev/null
}
complete -o default -F _banger banger
""",
    "zsh": """\
#compdef banger
_banger() {
    local -a candidates
    candidates=("${(@f)$(banger __complete -- "${(@)words[2,CURRENT-1]}" "${words[CURRENT]}" 2>/dev/null)}")
    candidates=("${(@)candidates//:/\\\\:}")
    candidates=("${(@)candidates//$'\\t'/:}")
    if [[ -n "${candidates[1]}" ]]; then _describe banger candidates; else _files; fi
}
if [[ "${funcstack[1]}" == _banger ]]; then _banger "$@"; else compdef _banger banger; fi
""",
    "fish": """\
function __banger_complete
    set -l words (commandline -opc) (commandline -ct)
    banger __complete -- $words[2..-1] 2>/dev/null
end
complete -c banger -f -a '(__banger_complete)'
complete -c banger -n '__fish_seen_argument -l from-tar' -F
""",
}


def script(arguments: Arguments) -> int:
    sys.stdout.write(SCRIPTS[arguments.get("shell")])
    return 0


def complete(arguments: Arguments) -> int:
    """One candidate a line for the last word, a tab and its description behind it where there is one."""
    *before, prefix = arguments.rest or [""]
    try:
        candidates = find_candidates(before, prefix)
    except Failure:
        candidates = []
    sys.stdout.write("".join(f"{line}\n" for line in candidates if line.startswith(prefix)))
    return 0


def find_candidates(before: list[str], prefix: str) -> list[str]:
    """What may stand after the words `before`; not yet reduced to those that begin with the prefix."""
    if "--" in before:
        return []
    if before[:1] == ["vm"] and before[1:] and before[1] in catalog.OF_VMS:
        before = before[1:]
    name, rest = _find_command(before)
    if name is None:
        return _find_words(before)
    command = catalog.find(name)
    if rest and (waiting := _find_flag(command, rest[-1])):
        return _find_values(waiting)
    if prefix.startswith("-"):
        flags = [f"--{p.flag}\t{p.help}" for p in command.parameters if p.flag]
        return flags + [f"--no-{p.flag}\tnot: {p.help}" for p in command.parameters if p.negatable]
    taken = _count_positionals(command, rest)
    positionals = command.positionals
    if positionals and (command.many or taken < len(positionals)):
        return _find_values(positionals[0 if command.many else taken])
    return []


def _find_command(before: list[str]) -> tuple[str | None, list[str]]:
    for count in (1, 2):
        name = " ".join(before[:count])
        if len(before) >= count and catalog.ALIASES.get(name, name) in catalog.COMMANDS:
            return catalog.ALIASES.get(name, name), before[count:]
    return None, []


def _find_words(before: list[str]) -> list[str]:
    """Groups and commands, at the top or in a group."""
    if not before:
        return [
            *catalog.GROUPS,
            *(name for name in catalog.COMMANDS if " " not in name and name[0] != "_"),
            "ps",
            "cp",
        ]
    inside = before[0] + " "
    names = [name for name in catalog.COMMANDS if name.startswith(inside)] if len(before) == 1 else []
    return [
        f"{name[len(inside) :]}\t{catalog.find(name).summary.split('. ')[0].rstrip('.')}" for name in names
    ]


def _find_flag(command: Command, word: str) -> Parameter | None:
    """The parameter whose value comes after this word, if it is a flag with a value."""
    for parameter in command.parameters:
        if parameter.type != "bool" and word in (f"--{parameter.flag}", f"-{parameter.short}"):
            return parameter
    return None


def _count_positionals(command: Command, words: list[str]) -> int:
    count, skip = 0, False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = _find_flag(command, word) is not None
        else:
            count += 1
    return count


def _find_values(parameter: Parameter) -> list[str]:
    if parameter.choices:
        return list(parameter.choices)
    copied = parameter.name == "paths"  # VM:PATH, or a file of this host, which the shell knows
    what = "vm" if copied else _NAMED.get(parameter.name)
    if what is None:
        return []
    connection = find_connection()
    if connection is None:
        return []
    with connection:
        return [
            f"{word}:" if copied else str(word)
            for word in connection.call("complete", {"what": what}).get("words", ())
        ]
