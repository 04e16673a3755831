"""Rows of sessions as the API shows them. Pure."""

from banger.api.sessions import Session
from banger.guest.sessions import SessionInfo
from banger.model.session import SessionRow
from banger.model.vm import VmRecord


def describe(row: SessionRow, vm: VmRecord, info: SessionInfo | None = None) -> Session:
    return Session(
        id=row.id,
        name=row.name,
        vm=vm.name,
        vm_id=vm.id,
        state=row.state,
        argv=list(row.argv),
        created_at=row.created_at,
        cwd=row.cwd,
        user=row.user,
        env_names=list(row.env_names),
        tags=row.tags,
        pty=row.pty,
        stdin=row.stdin,
        pid=row.pid,
        status=row.status,
        signal=row.signal,
        started_at=row.started_at,
        ended_at=row.ended_at,
        error=row.error,
        begin=info.begin if info else None,
        end=info.end if info else None,
        rows=info.rows if info and row.pty else None,
        columns=info.columns if info and row.pty else None,
        has_writer=info.has_writer if info else False,
        readers=info.readers if info else 0,
    )
