"""Writes what derives from the API's declarations: the CLI's tables and the reference pages.

    python tools/generate.py            writes the files that have changed
    python tools/generate.py --check    fails, naming them, if any would change

The tables are plain literals, so that the CLI need not import msgspec or the declarations to know them.
Output depends on the sources only.
"""

import enum
import sys
import types
import typing
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from banger.api import frames  # noqa: E402
from banger.api.method import MAX_LINE_BYTES, PROTOCOL_VERSION, Request  # noqa: E402
from banger.api.registry import METHODS  # noqa: E402
from banger.base.problem import CODES  # noqa: E402

WRITTEN = "written by tools/generate.py; do not edit"
_PLAIN = {bool: "bool", int: "int", float: "float", str: "str"}


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    stale = []
    for path, render in OUTPUTS.items():
        text = render()
        if path.exists() and path.read_text() == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not check:
            path.write_text(text)
    for name in stale:
        print(f"{name} is stale: run python tools/generate.py" if check else f"{name} written")
    return 1 if check and stale else 0


# ---- what a request class says about itself


def describe_parameters(request: type[Request[Any]]) -> list[dict[str, Any]]:
    """One row per field of a request, in the order of declaration; keys that say nothing are left out."""
    hints = typing.get_type_hints(request, include_extras=True)
    rows = []
    for entry in msgspec.structs.fields(request):
        shown, meta = _split(hints[entry.name])
        cli = dict((meta.extra or {}) if meta else {})
        row: dict[str, Any] = {"name": entry.name, "type": _type_word(shown)}
        if not cli.pop("positional", False):
            row["flag"] = cli.pop("flag", None) or entry.name.replace("_", "-")
        else:
            row["positional"] = True
        row["help"] = meta.description if meta else ""
        row.update((key, tuple(value) if isinstance(value, list) else value) for key, value in cli.items())
        if entry.required:
            row["required"] = True
        elif (default := _default(entry)) is not None:
            row["default"] = default
        rows.append(row)
    return rows


def _split(hint: Any) -> tuple[Any, msgspec.Meta | None]:
    """The plain type, without annotations, limits and None; and the annotation that describes the field."""
    metas = [m for m in getattr(hint, "__metadata__", ()) if isinstance(m, msgspec.Meta)]
    described = next((meta for meta in metas if meta.description is not None), None)
    return _strip(hint), described


def _strip(hint: Any) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _strip(options[0])
    if origin in (types.UnionType, typing.Union):
        return _strip(next(option for option in options if option is not types.NoneType))
    return str if origin is typing.Literal else hint


def _type_word(shown: Any) -> str:
    origin = typing.get_origin(shown)
    return {list: "list", dict: "map"}.get(origin) or _PLAIN[shown]


def _default(entry: msgspec.structs.FieldInfo) -> Any:
    if entry.default_factory is not msgspec.NODEFAULT:
        return None  # an empty list or map
    return entry.default


# ---- Python tables


def render_methods() -> str:
    lines = [
        f'"""Every method of the daemon as plain literals: {WRITTEN}."""',
        "",
        "# fmt: off",
        "# ruff: noqa: E501",
        "from __future__ import annotations",
        "",
        "TYPE_CHECKING = False",
        "if TYPE_CHECKING:",
        "    from typing import Any",
        "",
        "METHODS: dict[str, dict[str, Any]] = {",
    ]
    for name, request in METHODS.items():
        lines.append(f"    {name!r}: {{")
        lines.append(f"        'help': {_doc(request)!r},")
        lines.append(f"        'effect': {request.effect.value!r}, 'kind': {request.kind.value!r},")
        lines.append("        'parameters': (")
        lines += [f"            {row!r}," for row in describe_parameters(request)]
        lines += ["        ),", "    },"]
    return "\n".join([*lines, "}", ""])


def render_statuses() -> str:
    return "\n".join(
        [
            f'"""The protocol\'s numbers and the exit status of every error code: {WRITTEN}."""',
            "",
            f"PROTOCOL_VERSION = {PROTOCOL_VERSION}",
            f"MAX_LINE_BYTES = {MAX_LINE_BYTES}",
            f"MAX_PAYLOAD_BYTES = {frames.MAX_PAYLOAD_BYTES}",
            "",
            *(
                f"{name} = {getattr(frames, name)}"
                for name in ("STDIN", "STDOUT", "STDERR", "CONTROL", "END", "EVENT")
            ),
            "",
            "EXIT_STATUS = {",
            *(f'    "{code.value}": {info.exit_status},' for code, info in CODES.items()),
            "}",
            "",
        ]
    )


def _doc(request: type[Request[Any]]) -> str:
    return " ".join((request.__doc__ or "").split())


# ---- reference pages


def render_exit_status() -> str:
    lines = [
        f"<!-- {WRITTEN} -->",
        "# Exit statuses and error codes",
        "",
        "`banger vm run -- CMD`, `vm exec` and `vm ssh` exit with the command's own status. Everything else exits with",
        "0, or with the status of the error's code. Several VMs in one command: the status of the first failure.",
        "`doctor`, `system status` and `vm health` exit with 69 where what they tell of is not well.",
        "",
        "An error is one line on stderr, `hint:` with what helps, and the operation's id in parentheses, by which the",
        "daemon's log can be searched.",
        "",
        "| status | code | meaning | HTTP |",
        "|--:|---|---|--:|",
    ]
    rows = sorted(CODES.items(), key=lambda item: (item[1].exit_status, item[0].value))
    lines += [f"| {i.exit_status} | `{c.value}` | {i.meaning} | {i.http_status} |" for c, i in rows]
    lines += [
        "",
        "| status | of a command in a guest |",
        "|--:|---|",
        "| 126 | the command is there but cannot be executed |",
        "| 127 | there is no such command |",
        "| 128 + n | the command was killed by signal n |",
        "| 130 | interrupted with Ctrl-C |",
        "| 141 | who was to read our output has gone (as after SIGPIPE) |",
        "| 255 | `vm ssh`: OpenSSH itself failed |",
        "",
    ]
    return "\n".join(lines)


def render_methods_page() -> str:
    """Every method with its parameters and result, and below them every type that a result contains."""
    lines = [
        f"<!-- {WRITTEN} -->",
        "# Methods of the daemon",
        "",
        "How calls travel is in [rpc.md](rpc.md). A parameter that is not marked required may be left out.",
        "",
    ]
    needed: dict[str, Any] = {}
    for name, request in METHODS.items():
        lines += [f"## {name}", "", _doc(request), ""]
        lines += [
            f"Effect: {request.effect.value}. Kind: {request.kind.value}. "
            f"Result: {_type_name(request.result_type, needed)}.",
            "",
        ]
        rows = describe_parameters(request)
        if rows:
            lines += ["| parameter | type | default | |", "|---|---|---|---|"]
        for row in rows:
            default = (
                "required" if row.get("required") else f"`{row['default']!r}`" if "default" in row else ""
            )
            lines.append(f"| `{row['name']}` | {row['type']} | {default} | {row['help']} |")
        if rows:
            lines.append("")
    lines += ["# Types", ""]
    shown: set[str] = set()
    while waiting := [item for item in needed.items() if item[0] not in shown]:
        for name, struct in sorted(waiting):
            shown.add(name)
            lines += [f"## {name}", "", *_describe_type(struct, needed), ""]
    return "\n".join(lines)


def _describe_type(struct: Any, needed: dict[str, Any]) -> list[str]:
    doc = " ".join((struct.__doc__ or "").split())
    if isinstance(struct, type) and issubclass(struct, enum.Enum):
        return [doc, "", "One of " + ", ".join(f"`{member.value}`" for member in struct) + "."]
    hints = typing.get_type_hints(struct)
    lines = [] if doc.startswith(struct.__name__ + "(") else [doc, ""]
    lines += ["| field | type |", "|---|---|"]
    return lines + [
        f"| `{entry.encode_name}` | {_type_name(hints[entry.name], needed)} |"
        for entry in msgspec.structs.fields(struct)
    ]


def _type_name(hint: Any, needed: dict[str, Any]) -> str:
    """How a type is written in the reference; structures and enums are remembered for their own section."""
    if isinstance(hint, types.UnionType):
        return " or ".join(_type_name(option, needed) for option in typing.get_args(hint))
    origin, arguments = typing.get_origin(hint), [a for a in typing.get_args(hint) if a is not ...]
    if origin in (list, tuple):
        return "list of " + _type_name(arguments[0], needed)
    if origin is dict:
        return f"map of {_type_name(arguments[1], needed)}"
    if isinstance(hint, enum.EnumMeta) or (isinstance(hint, type) and issubclass(hint, msgspec.Struct)):
        needed[hint.__name__] = hint
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    if hint is types.NoneType:
        return "null"
    return str(getattr(hint, "__name__", "any")).lower()


def render_cli_page() -> str:
    """The help of every command, as the CLI itself prints it."""
    for name in [n for n in sys.modules if n.startswith("banger.cli")]:
        del sys.modules[name]  # the table may just have been written anew
    from banger.cli import catalog, help

    lines = [f"<!-- {WRITTEN} -->", "# The command line", ""]
    lines += ["```text", help.render_top().rstrip(), "```", ""]
    for group in catalog.GROUPS:
        lines += [f"## banger {group}", "", "```text", help.render_group(group).rstrip(), "```", ""]
        names = [name for name in catalog.COMMANDS if name.startswith(group + " ")]
        for name in names:
            lines += [
                f"### banger {name}",
                "",
                "```text",
                help.render_command(catalog.find(name)).rstrip(),
                "```",
                "",
            ]
    for name in catalog.COMMANDS:
        if " " not in name and not name.startswith("_"):
            lines += [
                f"## banger {name}",
                "",
                "```text",
                help.render_command(catalog.find(name)).rstrip(),
                "```",
                "",
            ]
    return "\n".join(lines)


OUTPUTS = {
    ROOT / "src/banger/client/statuses.py": render_statuses,
    ROOT / "src/banger/cli/methods.py": render_methods,
    ROOT / "docs/reference/exit-status.md": render_exit_status,
    ROOT / "docs/reference/methods.md": render_methods_page,
    ROOT / "docs/reference/cli.md": render_cli_page,
}

if __name__ == "__main__":
    sys.exit(main())
