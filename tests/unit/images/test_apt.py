import pytest

from banger.base.problem import Problem
from banger.images.apt import parse_package

STANZA = """\
Package: linux-image-cloud-amd64
Version: 6.1.192-2
Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), libc6:any (>= 2) | musl
Description: Linux
 Depends: not this
Size: 1504

Package: another
Version: 1
"""


def test_the_first_stanza_is_read():
    package = parse_package(STANZA)
    assert package.name == "linux-image-cloud-amd64"
    assert package.version == "6.1.192-2"
    assert package.size_bytes == 1504
    assert package.depends == ("linux-image-6.1.0-56-cloud-amd64", "libc6")


def test_a_strange_answer_is_a_problem():
    with pytest.raises(Problem):
        parse_package("Version: 1\n")
