"""From a line to a handler and back: versions, operation ids, parameters, errors.

Owns the table from METHODS to handlers, checked once when it is built. One of the three places where every
exception is caught: nothing a handler raises may end the daemon, and every error carries its operation id.
"""

import hashlib
import inspect
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol

import msgspec

from banger.api.method import MAX_LINE_BYTES, PROTOCOL_VERSION, Kind
from banger.api.registry import METHODS
from banger.base.log import operation_id
from banger.base.problem import Code, Outcome, Problem, bad_request
from banger.daemon.contract import Handler, Handlers, OperationHandler
from banger.daemon.refusal import explain_mismatch
from banger.daemon.stream import CallerStream, Link
from banger.model.operation import Operation
from banger.services.operations.registry import Operations
from banger.services.operations.running import Running

log = logging.getLogger(__name__)

_OP_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_MAX_OP_ID = 64
_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's, in ASCII order, so that ids sort by time
_PAIRS = [first + second for first in _BASE32 for second in _BASE32]
_random = random.Random()  # noqa: S311 (ids are to differ, not to be secret)

_encode = msgspec.json.Encoder().encode


class Caller(Link, Protocol):
    """What dispatch needs of a connection."""

    async def send(self, line: bytes) -> None:
        """Writes a line; returns when the peer's socket has room again."""


class Pending(NamedTuple):
    """A call that waits: `run` gives the reply's line, or None when a stream has had its last word."""

    op_id: str
    run: Callable[[], Awaitable[bytes | None]]


class Rejected(NamedTuple):
    """What came was no request at all: the connection ends with this line."""

    line: bytes


class WatchHandler(NamedTuple):
    """Follows an operation begun elsewhere: the live one, or the record of one that has ended."""

    find: Callable[[Any], Running | Operation]


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    v: int
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")
    op: str | None = None
    detach: bool = False


class _Entry(NamedTuple):
    kind: Kind
    decode: Callable[[msgspec.Raw], Any]
    handler: Handler | WatchHandler
    waits: bool


class _Call(NamedTuple):
    method: str
    op_id: str
    handler: OperationHandler
    request: Any


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def mint_operation_id() -> str:
    """`op-` and 13 characters: 45 bits of milliseconds, 20 of chance; sorts by time."""
    now = time.time_ns() // 1_000_000
    chance = _random.getrandbits(20)
    return (
        f"op-{_PAIRS[now >> 40 & 31][1]}{_PAIRS[now >> 30 & 1023]}{_PAIRS[now >> 20 & 1023]}"
        f"{_PAIRS[now >> 10 & 1023]}{_PAIRS[now & 1023]}{_PAIRS[chance >> 10]}{_PAIRS[chance & 1023]}"
    )


def render_error(op_id: str, problem: Problem) -> bytes:
    op_id = op_id or mint_operation_id()
    log.info("refused", extra={"op": op_id, "code": problem.code.value, "why": problem.brief})
    line: bytes = _encode({"op": op_id, "error": {**problem.as_data(), "op": op_id}}) + b"\n"
    if len(line) > MAX_LINE_BYTES:
        short = Problem(problem.code, problem.brief[:1000], outcome=problem.outcome)
        line = _encode({"op": op_id, "error": {**short.as_data(), "op": op_id}}) + b"\n"
    return line


def render_result(op_id: str, result: Any) -> bytes:
    line: bytes = _encode({"op": op_id, "result": result}) + b"\n"
    if len(line) > MAX_LINE_BYTES:
        brief = f"the result takes {len(line)} bytes, at most {MAX_LINE_BYTES} fit a line"
        return render_error(op_id, Problem(Code.OPERATION_FAILED, brief, outcome=Outcome.UNKNOWN))
    return line


class Dispatch:
    """The table of methods. `refusal`, once set, answers every further call."""

    def __init__(self, handlers: Handlers | dict[str, Any], operations: Operations) -> None:
        check_handlers(handlers)
        self._operations = operations
        self.refusal: Problem | None = None
        self._table = {
            method: _Entry(
                request.kind,
                msgspec.json.Decoder(request).decode,
                handlers[method],
                inspect.iscoroutinefunction(handlers[method]),
            )
            for method, request in METHODS.items()
        }

    def take(self, line: bytes, caller: Caller) -> bytes | Pending | Rejected:
        """The reply, or the call to await, or the last line for who does not speak the protocol."""
        op_id = ""
        try:
            try:
                envelope = _decode_envelope(line)
                version = envelope.v
            except (ValueError, RecursionError) as error:
                return self._refuse_envelope(line, error)
            if version != PROTOCOL_VERSION:
                raise _refuse_version(version)
            op_id = mint_operation_id() if envelope.op is None else _adopt_operation_id(envelope.op)
            if self.refusal is not None:
                raise self.refusal
            return self._call(envelope, op_id, caller)
        except Problem as problem:
            return render_error(op_id, problem)

    def _call(self, envelope: _Envelope, op_id: str, caller: Caller) -> bytes | Pending:
        entry = self._table.get(envelope.method)
        if entry is None:
            raise Problem(
                Code.UNKNOWN_METHOD,
                f"there is no method {envelope.method[:80]!r}",
                hint="banger daemon stop, when the command was updated since the daemon started",
                outcome=Outcome.NOT_STARTED,
            )
        try:
            request = entry.decode(envelope.params)
        except (ValueError, RecursionError) as error:
            raise explain_mismatch(envelope.method, envelope.params, error) from error
        handler: Any = entry.handler
        if isinstance(handler, OperationHandler):
            call = _Call(envelope.method, op_id, handler, request)
            if envelope.detach:
                return _guard_plain(op_id, lambda: self._detach(call))
            return Pending(op_id, lambda: _guard(op_id, self._attend(call, caller)))
        if envelope.detach:
            raise bad_request(f"{envelope.method} begins no operation and cannot be detached")
        if isinstance(handler, WatchHandler):
            return Pending(op_id, lambda: _guard(op_id, self._watch(handler, op_id, request, caller)))
        if entry.kind is Kind.STREAM:
            return Pending(op_id, lambda: _stream(op_id, handler, request, caller))
        if entry.waits:
            return Pending(op_id, lambda: _guard(op_id, handler(request)))
        return _guard_plain(op_id, lambda: handler(request))

    def _ensure_begun(self, call: _Call) -> Running | Operation:
        """The operation of this call: begun now, or, when the same call came under its id before, the one from then."""
        digest = _digest(call)
        begun = self._operations.find_same(call.op_id, call.method, digest)
        if begun is not None:
            log.info("a call came again", extra={"op": call.op_id})
            return begun
        handler, request = call.handler, call.request
        subject = handler.subject(request)
        return self._operations.begin(
            call.op_id, call.method, subject, lambda progress: handler.work(request, progress), call=digest
        )

    def _detach(self, call: _Call) -> Operation:
        begun = self._ensure_begun(call)
        if isinstance(begun, Operation):
            return begun
        begun.keep()
        return begun.snapshot()

    async def _attend(self, call: _Call, caller: Caller) -> Any:
        """An operation whose caller stays: when the last one leaves, the work is cancelled, and undoes itself alone."""
        begun = self._ensure_begun(call)
        if isinstance(begun, Operation):
            return _get_result(begun)
        begun.join()
        try:
            await _push_events(begun, call.op_id, caller)
            return _get_result(await begun.wait())
        finally:
            begun.part()

    async def _watch(self, handler: WatchHandler, op_id: str, request: Any, caller: Caller) -> Operation:
        found = handler.find(request)
        if isinstance(found, Operation):
            return found
        await _push_events(found, op_id, caller)
        return await found.wait()

    def _refuse_envelope(self, line: bytes, error: Exception) -> bytes | Rejected:
        try:
            content = msgspec.json.decode(line)
        except (ValueError, RecursionError):
            return Rejected(render_error("", bad_request("a line is not JSON")))
        if not isinstance(content, dict):
            return Rejected(render_error("", bad_request("a request is a JSON object")))
        if (version := content.get("v")) != PROTOCOL_VERSION or isinstance(version, bool):
            return render_error("", _refuse_version(version))
        return render_error("", explain_mismatch("the request", msgspec.Raw(line), error))


def _digest(call: _Call) -> str:
    """The same for the same call, in whatever order its parameters came and whether defaults were named or not."""
    params = msgspec.json.encode(call.request, order="sorted")
    return hashlib.sha256(call.method.encode() + b"\0" + params).hexdigest()[:32]


def _get_result(ended: Operation) -> Any:
    """What the caller of an operation gets at its end. Raises its error."""
    if ended.error is not None:
        raise Problem.from_data(ended.error)
    if ended.resolved is not None and ended.result is None:
        raise Problem(
            Code.OPERATION_FAILED,
            f"{ended.kind} of {ended.subject} succeeded, but its result was lost with the daemon: {ended.resolved}",
            hint=f"banger operation show {ended.id}",
        )
    return ended.result


async def _push_events(running: Running, op_id: str, caller: Caller) -> None:
    async with aclosing(running.events()) as events:
        async for event in events:
            await caller.send(_encode({"op": op_id, "event": event}) + b"\n")


async def _stream(op_id: str, handler: Any, request: Any, caller: Caller) -> bytes | None:
    stream = CallerStream(caller, op_id)
    try:
        await handler(request, stream)
        assert stream.finished, "a stream's handler ended without finish"
        return None
    except Exception as error:  # noqa: BLE001 (dispatch is where every exception ends)
        problem = _name_problem(error)
    if not stream.accepted:
        return render_error(op_id, problem)
    if not stream.finished:
        stream.fail({**problem.as_data(), "op": op_id})
    return None


async def _guard(op_id: str, call: Awaitable[Any]) -> bytes:
    try:
        return render_result(op_id, await call)
    except Exception as error:  # noqa: BLE001 (dispatch is where every exception ends)
        return render_error(op_id, _name_problem(error))


def _guard_plain(op_id: str, call: Callable[[], Any]) -> bytes:
    token = operation_id.set(op_id)
    try:
        return render_result(op_id, call())
    except Exception as error:  # noqa: BLE001 (dispatch is where every exception ends)
        return render_error(op_id, _name_problem(error))
    finally:
        operation_id.reset(token)


def _name_problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    log.error("a call failed by a bug", exc_info=error)
    return Problem(
        Code.INTERNAL,
        f"a bug in the daemon: {type(error).__name__}",
        hint="grep the operation's id in the daemon's log",
        outcome=Outcome.UNKNOWN,
    )


def _refuse_version(version: Any) -> Problem:
    shown = repr(version)[:40] if version is not None else "none"
    return Problem(
        Code.BAD_VERSION,
        f"the client speaks protocol version {shown}, the daemon {PROTOCOL_VERSION}",
        hint="banger daemon stop, when the command was updated since the daemon started",
        outcome=Outcome.NOT_STARTED,
    )


def _adopt_operation_id(untrusted_op: str) -> str:
    if not 1 <= len(untrusted_op) <= _MAX_OP_ID or not _OP_CHARACTERS.issuperset(untrusted_op):
        raise bad_request(
            f"op: {untrusted_op[:80]!r} is not an operation id", hint="1 to 64 of a-z A-Z 0-9 _ -"
        )
    return untrusted_op


def check_handlers(handlers: Handlers | dict[str, Any]) -> None:
    """Every method of METHODS has one handler whose form fits its kind. Raises AssertionError."""
    assert set(handlers) == set(METHODS), sorted(set(handlers) ^ set(METHODS))
    for method, request in METHODS.items():
        handler = handlers[method]
        if isinstance(handler, WatchHandler):
            assert request.kind is Kind.OPERATION, method
            continue
        is_operation = isinstance(handler, OperationHandler)
        assert is_operation == (request.kind is Kind.OPERATION), f"{method} is of kind {request.kind.value}"
        if isinstance(handler, OperationHandler):
            _check_signature(method, handler.subject, (request,))
            _check_signature(method, handler.work, (request, None))
        elif request.kind is Kind.STREAM:
            assert inspect.iscoroutinefunction(handler), f"{method}: a stream's handler is async"
            _check_signature(method, handler, (request, None))
        else:
            _check_signature(method, handler, (request,))


def _check_signature(method: str, function: Any, expected: tuple[Any, ...]) -> None:
    signature = inspect.signature(function)
    try:
        bound = signature.bind(*expected)
    except TypeError as error:
        raise AssertionError(f"{method}: {function} takes other arguments: {error}") from error
    annotation = signature.parameters[next(iter(bound.arguments))].annotation
    fits = annotation in (inspect.Parameter.empty, Any, expected[0], expected[0].__name__)
    assert fits or not isinstance(annotation, type), f"{method}: {function} takes {annotation}"
