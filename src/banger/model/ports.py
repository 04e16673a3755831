"""Published ports as people write them: `[IP:]HOST:GUEST[/udp]`. Pure."""

import ipaddress
from collections.abc import Iterable

from banger.base.problem import bad_request
from banger.model.machine import PortForward
from banger.model.vm import LOOPBACK

PORTS_MAX = 64
ANY = "0.0.0.0"  # noqa: S104 (named by the owner, never the default)
_HINT = "a port is written [IP:]HOST:GUEST[/udp], for example 8080:80 or 0.0.0.0:5353:53/udp"


def parse_publish(untrusted_text: str) -> PortForward:
    """Loopback unless an address is named. Raises `bad_request`."""
    text, slash, protocol = untrusted_text.partition("/")
    parts = text.split(":")
    if len(parts) == 2:
        parts.insert(0, LOOPBACK)
    if len(parts) != 3 or (slash and protocol not in ("tcp", "udp")):
        raise bad_request(f"{untrusted_text!r} is not a port to publish", hint=_HINT)
    address, host_port, guest_port = parts
    try:
        canonical = str(ipaddress.IPv4Address(address))
    except ValueError as error:
        raise bad_request(f"{address!r} is not an IPv4 address of this host", hint=_HINT) from error
    return PortForward(
        host_address=canonical,
        host_port=_parse_port(host_port, untrusted_text),
        guest_port=_parse_port(guest_port, untrusted_text),
        protocol=protocol or "tcp",
    )


def parse_all(untrusted_texts: Iterable[str]) -> tuple[PortForward, ...]:
    """Raises `bad_request` for a port that is wrong, published twice, or one too many."""
    forwards = tuple(parse_publish(text) for text in untrusted_texts)
    check_together(forwards)
    return forwards


def check_together(forwards: tuple[PortForward, ...]) -> None:
    """Two that want one port of the host: of the same address, or of all addresses."""
    if len(forwards) > PORTS_MAX:
        raise bad_request(f"{len(forwards)} published ports are more than {PORTS_MAX}")
    for index, one in enumerate(forwards):
        if (other := find_rival(one, forwards[:index])) is not None:
            raise bad_request(
                f"{render_publish(one)} and {render_publish(other)} want the same port",
                hint=f"leave one out, or choose another port of the host than {one.host_port}",
            )


def find_rival(port: PortForward, others: Iterable[PortForward]) -> PortForward | None:
    """The first that wants the same port of the host."""
    for other in others:
        same = (port.protocol, port.host_port) == (other.protocol, other.host_port)
        if same and (
            port.host_address == other.host_address or ANY in (port.host_address, other.host_address)
        ):
            return other
    return None


def render_publish(forward: PortForward) -> str:
    """As it would be written, the address always named."""
    suffix = "" if forward.protocol == "tcp" else f"/{forward.protocol}"
    return f"{forward.host_address}:{forward.host_port}:{forward.guest_port}{suffix}"


def render_short(forward: PortForward) -> str:
    """As it would be written: without loopback's address, which is meant where none is named."""
    return render_publish(forward).removeprefix(f"{LOOPBACK}:")


def _parse_port(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5) or not 0 < int(text) < 65536:
        raise bad_request(f"{text!r} in {whole!r} is not a port", hint=_HINT)
    return int(text)
