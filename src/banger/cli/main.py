"""The entry: words in, exit status out. Owns how failures are shown (docs/reference/exit-status.md).

Nothing is imported here that `banger vm list` does not need; a command's module is loaded when it is called.
"""

from __future__ import annotations

import os
import sys

from banger.cli.parser import HelpAsked, parse
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from banger.cli.parser import Arguments

INTERRUPTED = 130
BROKEN_PIPE = 141


def entry() -> None:
    """The console script."""
    _fill_descriptors()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))


def main(words: list[str]) -> int:
    """Runs one command line. Never raises, but for bugs. A KeyboardInterrupt may say what goes on without us."""
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except Failure as failure:
        report(failure)
        return failure.exit_status
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"\nbanger: interrupted{interrupt}\n")
        return INTERRUPTED
    except BrokenPipeError:
        # Whatever is still buffered must not raise again when the interpreter closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE


def report(failure: Failure) -> None:
    """One line and its hint on stderr, the operation's id in parentheses; the detail indented between them. All of it
    may hold names that others have chosen."""
    from banger.cli.output import defuse

    message = defuse(" ".join(failure.message.split()))
    lines = [f"banger: {message} ({failure.op})" if failure.op else f"banger: {message}"]
    if failure.detail:
        lines += ["  " + defuse(line) for line in failure.detail.rstrip().splitlines()]
    if failure.hint:
        lines.append(f"hint: {defuse(failure.hint)}")
    sys.stdout.flush()
    sys.stderr.write("\n".join(lines) + "\n")


def _run(words: list[str]) -> int:
    try:
        arguments = parse(words)
    except HelpAsked as asked:
        return _print_help(asked.name)
    command = arguments.command
    module = __import__(f"banger.cli.commands.{command.module}", fromlist=[command.function])
    function: Callable[[Arguments], int] = getattr(module, command.function)
    return function(arguments)


def _fill_descriptors() -> None:
    """/dev/null where we were started with 0, 1 or 2 closed, lest a socket gets that number."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
        sys.stdin = sys.stdin or open(0)  # noqa: SIM115 (for as long as we run)
        sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
        sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


def _print_help(name: str) -> int:
    from banger.cli import help as texts

    try:
        text = texts.render(name)
    except KeyError:
        raise Failure("bad_request", f"there is no command {name!r}", hint="banger --help") from None
    sys.stdout.write(text)
    return 0
