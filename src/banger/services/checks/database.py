"""Is the database whole, and one that this program understands? Looked at read-only; nothing is migrated."""

import asyncio
from pathlib import Path

from banger.api.system import Finding
from banger.base.units import MIB, render_size
from banger.services.checks.contract import CheckSurroundings, counted, passed, warned
from banger.store.examination import examine

_NAME = "database"
_LARGE = 256 * MIB


async def check(around: CheckSurroundings) -> Finding:
    """A damaged or newer one raises Problem."""
    live = around.serving_since is not None
    found = await asyncio.to_thread(examine, Path(around.paths.database), live=live)
    if found is None:
        return passed(_NAME, "none yet; the first start makes it")
    text = f"whole, schema {found.schema}, {counted(len(found.vms), 'VM')}, {render_size(found.size_bytes)}"
    if found.pending:
        text += f"; the next start brings it up to date ({counted(found.pending, 'step')})"
    if found.size_bytes > _LARGE:
        return warned(_NAME, f"{text}: larger than anything banger keeps in there", around.start_anew)
    return passed(_NAME, text)
