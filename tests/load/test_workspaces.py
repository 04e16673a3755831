"""Random repositories on their way in, against plain git: more of them than the unit tests take the time for."""

import pytest
from hypothesis import given, settings
from tests.support.preparing import check_round, open_preparing
from tests.support.repositories import Case, repositories

pytestmark = [pytest.mark.load, pytest.mark.timeout(1800)]


@settings(max_examples=300)
@given(case=repositories())
async def test_three_hundred_repositories_arrive_and_follow(tmp_path_factory, case: Case):
    async with open_preparing(tmp_path_factory.mktemp("random")) as preparing:
        await check_round(preparing, case)
