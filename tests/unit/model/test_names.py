import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.base.problem import Code, Problem
from banger.model.names import Named, compose_name, resolve_reference, validate_name


@pytest.mark.parametrize("name", ["a", "web-1", "x" * 63, "0", "9lives"])
def test_dns_labels_are_names(name):
    assert validate_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a_b", "x" * 64, "ä", "a b", "a\n", "../x"])
def test_everything_else_is_refused(name):
    with pytest.raises(Problem) as caught:
        validate_name(name)
    assert caught.value.code is Code.BAD_REQUEST


@given(st.integers(min_value=0, max_value=2**32 - 1))
def test_generated_names_are_valid(number):
    assert validate_name(compose_name(number))


KNOWN = [Named("abc123def456", "web"), Named("abd999999999", "db"), Named("f00000000000", "abc1")]


def test_names_ids_and_unique_prefixes_are_references():
    assert resolve_reference("web", KNOWN) == "abc123def456"
    assert resolve_reference("abd999999999", KNOWN) == "abd999999999"
    assert resolve_reference("f0", KNOWN) == "f00000000000"


def test_a_name_wins_over_a_prefix():
    assert resolve_reference("abc1", KNOWN) == "f00000000000"


def test_an_ambiguous_prefix_lists_the_candidates():
    with pytest.raises(Problem) as caught:
        resolve_reference("ab", KNOWN)
    assert caught.value.code is Code.AMBIGUOUS
    assert "abc123def456 (web)" in caught.value.brief
    assert "abd999999999 (db)" in caught.value.brief


@pytest.mark.parametrize("reference", ["", "nope", "zz"])
def test_unknown_references_are_not_found(reference):
    with pytest.raises(Problem) as caught:
        resolve_reference(reference, KNOWN)
    assert caught.value.code is Code.NOT_FOUND
