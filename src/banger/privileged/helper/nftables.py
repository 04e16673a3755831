"""nftables through its own library, in this process; through `nft -f -` where only the program is there.

Owns one library context, made at the first use. Text comes from `firewall` alone. A command text is one transaction:
all of it or nothing. Raises Refusal when nftables is not installed, NftError when the kernel says no.
"""

import ctypes
import errno
import json
import os
from typing import Any, Protocol

from banger.privileged.contract.values import Refusal
from banger.privileged.helper.programs import find_program, run_program
from banger.privileged.helper.refusals import nft_missing

LIBRARY = "libnftables.so.1"
PROGRAM = "nft"
_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON, nftables/libnftables.h
_DEADLINE_S = 20.0
_KNOWN = (errno.ENOENT, errno.EEXIST, errno.EPERM, errno.EOPNOTSUPP, errno.EBUSY, errno.ENOMEM)


class NftError(OSError):
    """`errno` is what the first line of the complaint names, 0 when it names none that is known."""

    def __init__(self, complaint: str) -> None:
        line = complaint.strip().partition("\n")[0].rpartition("Error: ")[2]
        number = next((number for number in _KNOWN if os.strerror(number) in line), 0)
        super().__init__(number, line or "nftables failed without a word")


class _Way(Protocol):
    def run(self, text: str) -> None:
        """Raises NftError."""

    def query(self, command: str) -> str:
        """The output as JSON. Raises NftError."""

    def close(self) -> None: ...


class Nft:
    """This network namespace's ruleset, as of the first use."""

    def __init__(self) -> None:
        self._way: _Way | None = None

    def close(self) -> None:
        if self._way is not None:
            self._way.close()
            self._way = None

    def ensure(self) -> None:
        """Raises Refusal when there is no nftables here."""
        self._open()

    def run(self, text: str) -> None:
        self._open().run(text)

    def query(self, command: str) -> list[dict[str, Any]]:
        """The objects of a `list` command: each a dictionary of one key, its kind."""
        return [item for item in self._query(command) if "metainfo" not in item]

    def find_version(self) -> str:
        """Empty when there is no nftables here."""
        try:
            items = self._query("list chains")
        except Refusal:
            return ""
        return next((str(item["metainfo"]["version"]) for item in items if "metainfo" in item), "")

    def _query(self, command: str) -> list[dict[str, Any]]:
        output = self._open().query(command)
        items: list[dict[str, Any]] = json.loads(output)["nftables"] if output.strip() else []
        return items

    def _open(self) -> _Way:
        if self._way is None:
            self._way = _find_way()
        return self._way


def _find_way() -> _Way:
    try:
        return _Library(ctypes.CDLL(LIBRARY))
    except OSError:
        if (program := find_program(PROGRAM)) is None:
            raise nft_missing() from None
        return _Program(program)


class _Library:
    """libnftables(3). Its context is bound to the network namespace in which it was made."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        for name, result, arguments in (
            ("nft_ctx_new", ctypes.c_void_p, (ctypes.c_uint32,)),
            ("nft_ctx_free", None, (ctypes.c_void_p,)),
            ("nft_ctx_buffer_output", ctypes.c_int, (ctypes.c_void_p,)),
            ("nft_ctx_buffer_error", ctypes.c_int, (ctypes.c_void_p,)),
            ("nft_ctx_get_output_buffer", ctypes.c_char_p, (ctypes.c_void_p,)),
            ("nft_ctx_get_error_buffer", ctypes.c_char_p, (ctypes.c_void_p,)),
            ("nft_ctx_output_set_flags", None, (ctypes.c_void_p, ctypes.c_uint)),
            ("nft_run_cmd_from_buffer", ctypes.c_int, (ctypes.c_void_p, ctypes.c_char_p)),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._context = library.nft_ctx_new(0)
        if not self._context:
            raise Refusal("unavailable", "nftables cannot be used here")
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    def close(self) -> None:
        self._library.nft_ctx_free(self._context)

    def run(self, text: str) -> None:
        self._run(text, flags=0)

    def query(self, command: str) -> str:
        return self._run(command, flags=_JSON)

    def _run(self, text: str, *, flags: int) -> str:
        self._library.nft_ctx_output_set_flags(self._context, flags)
        failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        complaint: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise NftError(complaint.decode("utf-8", "replace"))
        return output.decode("utf-8", "replace")


class _Program:
    """nft(8), one process for each transaction."""

    def __init__(self, path: str) -> None:
        self._path = path

    def close(self) -> None:
        """Nothing is held."""

    def run(self, text: str) -> None:
        self._run((self._path, "-f", "-"), text)

    def query(self, command: str) -> str:
        return self._run((self._path, "-j", *command.split()), "")

    @staticmethod
    def _run(argv: tuple[str, ...], text: str) -> str:
        done = run_program(argv, stdin=text.encode(), deadline_s=_DEADLINE_S)
        if done.status != 0:
            raise NftError(done.stderr.decode("utf-8", "replace"))
        return done.stdout.decode("utf-8", "replace")
