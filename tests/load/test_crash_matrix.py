"""The daemon, the root helper and the VMM killed at every point of every operation, on the fake host.

Whatever is killed and when: the VM runs on with its boot_id, or is stopped and can be started, or (created, deleted) is
wholly gone; nothing is left that no row accounts for; what the user wrote is there. `tools/crash_table.py` renders
what was found into docs/reference/crash-matrix.md.
"""

import pytest
from tests.support.load.matrix import iterate_trials, make_trial, write_results

pytestmark = [pytest.mark.load, pytest.mark.timeout(600)]


@pytest.mark.parametrize(("kind", "name", "what"), list(iterate_trials()))
def test_nothing_is_leaked_or_lost_at_any_point(kind: str, name: str, what: str):
    found = make_trial(kind, name, what).run()
    write_results("fake", kind, name, what, found)
    wrong = [f"{each.point}: {each.outcome}: {'; '.join(each.problems)}" for each in found if each.problems]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(found)} points:", *wrong])
    missed = [each.point for each in found if each.outcome == "not reached"]
    assert len(missed) * 10 <= len(found), missed
