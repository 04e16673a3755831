"""What is said of parameters that do not fit: field and value, but never a value of the environment's."""

import msgspec
import pytest

from banger.api.registry import METHODS
from banger.daemon.refusal import explain_mismatch


def explain(method, content):
    raw = msgspec.Raw(msgspec.json.encode(content))
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(raw, type=METHODS[method])
    return explain_mismatch(method, raw, caught.value).brief


def test_a_value_that_does_not_fit_is_shown():
    assert 'vcpus is "four"' in explain("vm.create", {"vcpus": "four"})
    assert "unknown field vcpu (its value is 4)" in explain("vm.create", {"vcpu": 4})


@pytest.mark.parametrize("method", ["vm.exec", "session.start"])
@pytest.mark.parametrize("env", [{"KEY": "sk-0123"}, ["KEY=sk-0123", 7], "KEY=sk-0123", [["KEY", "sk-0123"]]])
def test_a_value_of_the_environment_is_not(method, env):
    brief = explain(method, {"vm": "web", "argv": ["x"], "env": env})
    assert "env" in brief
    assert "sk-0123" not in brief


@pytest.mark.parametrize("field", ["env", "env_file", "environment"])
def test_nor_one_of_a_field_that_is_not_known(field):
    brief = explain("vm.start", {"vm": "web", field: ["KEY=sk-0123"]})
    assert f"unknown field {field}" in brief
    assert "sk-0123" not in brief
