"""Which subnet the bridge may have: root's word, where the system's configuration is root's.

An owner who could choose it freely could have what the host sends to a private network behind its default route: the
company's name server, somebody's file server. Where banger is not installed for the system there is no word of root's,
and whoever runs this as root has chosen.
"""

import tomllib

from banger.privileged.contract.values import Refusal
from banger.privileged.helper.managed import Root, read_trusted

_PLACE = ("banger", "config.toml")
_CONFIGURATION = "/etc/banger/config.toml"
_DEFAULT_CIDR = "10.209.0.1/24"


def verify_subnet(address: str) -> None:
    """Raises Refusal for any other subnet than the configured one."""
    allowed = find_allowed(read_trusted(Root.CONFIGURATION, _PLACE))
    if allowed not in ("", address):
        raise Refusal(
            "unauthorized",
            f"{address} is not the bridge's subnet that {_CONFIGURATION} allows, which is {allowed}",
            f"sudoedit {_CONFIGURATION}, then: sudo banger system restart",
        )


def find_allowed(configuration: str) -> str:
    """Empty where there is no configuration of the system's. Pure. Raises Refusal for one that cannot be read."""
    if not configuration:
        return ""
    try:
        return str(tomllib.loads(configuration).get("bridge_cidr", _DEFAULT_CIDR))
    except tomllib.TOMLDecodeError as error:
        raise Refusal("unavailable", f"{_CONFIGURATION}: {error}", f"sudoedit {_CONFIGURATION}") from error
