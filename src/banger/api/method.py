"""What a method is: a request class whose fields are the parameters.

`@declare("vm.show", effect=Effect.READ)` over `class VmShow(Request[VmDetails])` says everything; `METHODS`
is the registry by name. Field texts are `msgspec.Meta(description=…)`; `extra` says how the CLI shows them.
"""

from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, ClassVar, Generic, TypeVar, get_args

import msgspec

PROTOCOL_VERSION = 1
MAX_LINE_BYTES = 1024 * 1024

R = TypeVar("R")


class Effect(Enum):
    READ = "read"
    CHANGE = "change"
    DESTROY = "destroy"


class Kind(Enum):
    IMMEDIATE = "immediate"  # one reply
    OPERATION = "operation"  # stages are pushed until the result; may be detached
    STREAM = "stream"  # the connection becomes a stream of binary frames


class Request(msgspec.Struct, Generic[R], kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all requests; R is the result's type. `declare` fills the class variables."""

    method: ClassVar[str] = ""
    effect: ClassVar[Effect] = Effect.READ
    kind: ClassVar[Kind] = Kind.IMMEDIATE
    result_type: ClassVar[Any] = None


METHODS: dict[str, type[Request[Any]]] = {}

C = TypeVar("C", bound=type[Request[Any]])


def declare(method: str, *, effect: Effect = Effect.READ, kind: Kind = Kind.IMMEDIATE) -> Callable[[C], C]:
    """Enters a request class into the registry under its name on the wire."""

    def enter(cls: C) -> C:
        assert method not in METHODS, method
        cls.method, cls.effect, cls.kind = method, effect, kind
        cls.result_type = get_args(cls.__orig_bases__[0])[0]  # type: ignore[attr-defined]
        METHODS[method] = cls
        return cls

    return enter


def field(description: str, **cli: Any) -> msgspec.Meta:
    """A parameter's text for help and reference. `cli` keys: positional, flag, short, metavar, unit, hidden."""
    return msgspec.Meta(description=description, extra=dict(cli))


VmReference = Annotated[str, field("name, id or unique id prefix of a VM", positional=True, metavar="VM")]


class Nothing(msgspec.Struct, frozen=True):
    """The result of methods that only succeed or fail."""
