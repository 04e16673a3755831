from tools.lab.rerun import judge

LOST = (
    '<failure message="tools.lab.channel.LabLost: the lab has ended">E   tools.lab.channel.LabLost</failure>'
)
WRONG = '<failure message="AssertionError: 1">E   assert 1 == 2</failure>'


def render(*cases):
    return "".join(
        ["<testsuites><testsuite>"]
        + [
            f'<testcase classname="tests.lab.{module}" name="test">{inside}</testcase>'
            for module, inside in cases
        ]
        + ["</testsuite></testsuites>"]
    )


def test_a_module_that_lost_its_lab_runs_again_and_a_wrong_one_does_not():
    assert judge(render(("test_a", LOST), ("test_b", ""), ("test_c", ""))) == (("tests.lab.test_a",), ())
    assert judge(render(("test_a", ""), ("test_b", WRONG))) == ((), ("tests.lab.test_b",))
    assert judge(render(("test_a", LOST), ("test_b", WRONG))) == (
        ("tests.lab.test_a",),
        ("tests.lab.test_b",),
    )
    assert judge(render(("test_a", ""))) == ((), ())


def test_a_module_that_lost_its_lab_runs_whole():
    """What failed before may have been the first sign, and what came later failed for want of a lab."""
    said = render(("test_a", WRONG), ("test_a", LOST), ("test_a", LOST.replace("failure", "error")))
    assert judge(said) == (("tests.lab.test_a",), ())
