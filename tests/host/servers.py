"""What answers at either end of a test's connection. Standard library only: it runs in guests, too.

`servers.py NAME tcp:PORT udp:PORT dns:PORT …`. TCP echoes, but to `hello` it says its name and the peer's address, to
a request of HTTP as well; UDP says that to every datagram. DNS knows `example.net` and nothing else.
"""

import selectors
import socket
import sys

EXAMPLE = b"\x07example\x03net\x00"
EXAMPLE_ADDRESS = "203.0.113.7"


def greet(peer: str) -> bytes:
    return f"{sys.argv[1]} sees {peer.removeprefix('::ffff:')}\n".encode()


def answer_dns(query: bytes) -> bytes:
    """One A record, or NXDOMAIN for any other name; an empty answer for another type."""
    known = query[12:].lower().startswith(EXAMPLE)
    question = query[12 : 12 + query[12:].index(b"\0") + 5]
    wants_address = known and question[-4:-2] == b"\x00\x01"
    flags = b"\x81\x80" if known else b"\x81\x83"
    header = query[:2] + flags + b"\0\1" + (b"\0\1" if wants_address else b"\0\0") + b"\0\0\0\0"
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x05\0\x04" + socket.inet_aton(EXAMPLE_ADDRESS)
    return header + question + (record if wants_address else b"")


class Servers:
    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def add(self, kind: str, port: int) -> None:
        stream = kind == "tcp"
        server = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not stream:  # the answer leaves from the address that was asked
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        server.bind(("::", port))
        if stream:
            server.listen(64)
        serve = {"tcp": self.accept, "udp": self.greet_datagram, "dns": self.answer}[kind]
        self.selector.register(server, selectors.EVENT_READ, serve)

    def accept(self, server: socket.socket) -> None:
        connection, peer = server.accept()
        self.selector.register(connection, selectors.EVENT_READ, lambda sock: self.echo(sock, peer[0]))

    def echo(self, connection: socket.socket, peer: str) -> None:
        try:
            data = connection.recv(4096)
            if data.startswith(b"GET "):
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + greet(peer))
                data = b""
            elif data.startswith(b"hello"):
                connection.sendall(greet(peer))
            else:
                connection.sendall(data)
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(connection)
            connection.close()

    def greet_datagram(self, server: socket.socket) -> None:
        self.reply(server, lambda _, peer: greet(peer))

    def answer(self, server: socket.socket) -> None:
        self.reply(server, lambda query, _: answer_dns(query))

    def reply(self, server: socket.socket, render) -> None:
        data, ancillary, _, peer = server.recvmsg(4096, 256)
        control = [item for item in ancillary if item[1] == socket.IPV6_PKTINFO]
        server.sendmsg([render(data, peer[0])], control, 0, peer)

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select():
                key.data(key.fileobj)


def main() -> None:
    servers = Servers()
    for argument in sys.argv[2:]:
        kind, port = argument.split(":")
        servers.add(kind, int(port))
    print("ready", flush=True)
    servers.serve()


main()
