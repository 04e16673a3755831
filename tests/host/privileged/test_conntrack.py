"""What the kernel remembers of an address's flows is forgotten, and of nobody else's."""

import sys

import pytest
from tests.host.namespaces import Namespace
from tests.support.tiers import require_host

pytestmark = pytest.mark.host
TABLE = "table inet test { chain output { type filter hook output priority 0; ct state new counter; }; }\n"
# A flow from .5 to .6, one from .6 to .5, one between others; then those of .5 are forgotten, twice.
PROGRAM = """
import socket
from banger.privileged.helper.conntrack import Conntrack
def count():
    return int(open("/proc/sys/net/netfilter/nf_conntrack_count").read())
def talk(source, target):
    listener = socket.create_server((target, 0))
    client = socket.create_connection(listener.getsockname(), source_address=(source, 0))
    return listener, client, listener.accept()
conntrack = Conntrack()
kept = [talk("10.209.0.5", "10.209.0.6"), talk("10.209.0.6", "10.209.0.5"), talk("10.209.0.6", "10.209.0.7")]
print(count(), conntrack.forget("10.209.0.5"), count(), conntrack.forget("10.209.0.5"), count())
print(conntrack.forget("10.209.0.99"), count())
"""


@pytest.fixture
def namespace():
    require_host({"ip": "iproute2", "nft": "nftables"})
    namespace = Namespace()
    for address in ("10.209.0.5", "10.209.0.6", "10.209.0.7"):
        namespace.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    yield namespace
    namespace.close()


def test_the_flows_of_an_address_and_no_others_are_forgotten(namespace):
    namespace.run("nft", "-f", "-", input=TABLE)
    said = namespace.run(sys.executable, "-c", PROGRAM).stdout
    assert said.splitlines() == ["3 2 1 0 1", "0 1"]


def test_where_nothing_is_tracked_nothing_is_forgotten(namespace):
    program = (
        "from banger.privileged.helper.conntrack import Conntrack; print(Conntrack().forget('10.209.0.5'))"
    )
    assert namespace.run(sys.executable, "-c", program).stdout == "0\n"
