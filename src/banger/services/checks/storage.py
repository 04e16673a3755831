"""What do new VMs' root disks stand on their image by, and what else could be had? Each driver tries itself."""

from banger.api.system import Finding
from banger.base.problem import Problem
from banger.model.storage import StorageDriver
from banger.services.checks.contract import CheckSurroundings, failed, passed, warned

_NAME = "storage"
_TRIED = (StorageDriver.SNAPSHOT, StorageDriver.REFLINK)  # those that depend on the host


async def check(around: CheckSurroundings) -> Finding:
    """Only a whole copy for each VM is worth a warning: the others share with the image what was not changed."""
    try:
        chosen = await around.choose_storage()
    except Problem as problem:
        return failed(_NAME, f"no VM can be created: {problem.brief}", problem.hint)
    said, fixes = [f"{chosen.value} for new VMs"], []
    if around.config.storage_driver != "auto":
        said[0] += ", as the configuration says"
    for name in _TRIED:
        if name is chosen:
            continue
        try:
            await around.storage.get(name).probe()
        except Problem as problem:
            said.append(problem.brief)
            fixes.append(problem.hint)
        else:
            said.append(f"{name.value} would work")
    text = "; ".join(said)
    if chosen is StorageDriver.COPY:
        return warned(
            _NAME, f"{text}; each VM has a whole copy of its image", next(filter(None, fixes), None)
        )
    return passed(_NAME, text)
