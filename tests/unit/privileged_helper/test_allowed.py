import pytest

from banger.model.network import DEFAULT_CIDR
from banger.privileged.contract.values import Refusal
from banger.privileged.helper import allowed


@pytest.mark.parametrize(
    ("configuration", "cidr"),
    [
        ("", ""),
        ("# nothing", DEFAULT_CIDR),
        ('bridge_cidr = "10.210.0.1/24"\n[vm_defaults]\nvcpu = 2', "10.210.0.1/24"),
    ],
)
def test_what_root_allows(configuration, cidr):
    assert allowed.find_allowed(configuration) == cidr


def test_a_configuration_that_is_none_allows_nothing():
    with pytest.raises(Refusal, match=r"/etc/banger/config.toml: "):
        allowed.find_allowed("bridge_cidr = ")


def test_another_subnet_than_roots_is_refused(monkeypatch):
    monkeypatch.setattr(allowed, "read_trusted", lambda *_: "")
    allowed.verify_subnet("10.20.30.1/24")
    monkeypatch.setattr(allowed, "read_trusted", lambda *_: "log_level = 'info'")
    allowed.verify_subnet(DEFAULT_CIDR)
    with pytest.raises(Refusal) as caught:
        allowed.verify_subnet("10.20.30.1/24")
    assert caught.value.code == "unauthorized"
    assert "10.20.30.1/24" in caught.value.message
    assert DEFAULT_CIDR in caught.value.message
