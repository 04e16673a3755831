"""The record: what was written is read again, and nothing is removed on the word of a damaged one."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from banger.client import launch
from banger.client.wire import Failure
from banger.installation import places
from banger.installation.record import Record, RecordedFile, find_record, write_record
from banger.installation.tree import Tree

RECORD = Record(
    version="0.1.0",
    owner="alice",
    uid=1000,
    installed_at="2025-11-21T06:09:12Z",
    finished=False,
    files=(RecordedFile(path=places.HELPER, digest="ab" * 32, mode=0o755),),
    forwarding_before="0",
)


@pytest.fixture
def tree(host):
    return Tree(host.root, uid=os.getuid())


def test_a_record_survives_being_written(tree, host):
    assert find_record(tree) is None
    write_record(tree, RECORD)
    assert find_record(tree) == RECORD
    assert Path(host.at(places.RECORD)).stat().st_mode & 0o777 == 0o644
    assert RECORD.find(places.HELPER) is RECORD.files[0]
    assert RECORD.find(places.CONFIG) is None
    assert RECORD.finish(set()) == replace(RECORD, finished=True, files=())


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"uid": "1000"},
        {"uid": True},
        {"owner": None},
        {"files": [{"path": "/etc/passwd"}]},
        {"files": [{"path": 1, "digest": "", "mode": 0}]},
        {"files": 7},
        {"more": 1},
        None,
    ],
)
def test_a_damaged_record_is_refused_with_a_way_out(tree, host, change):
    write_record(tree, RECORD)
    file = Path(host.at(places.RECORD))
    file.write_text(json.dumps(json.loads(file.read_text()) | change) if change else "{")
    with pytest.raises(Failure, match="damaged") as caught:
        find_record(tree)
    assert places.RECORD in caught.value.hint


def test_the_client_knows_where_the_record_is():
    assert launch.INSTALL_RECORD == places.RECORD
