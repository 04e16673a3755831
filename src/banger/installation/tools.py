"""`setup tools`: the programs that banger puts into guests, kept where the user's daemon looks for them.

Nothing is put in place but what has the pinned digests. No daemon takes part: what is here already is what a machine
without a network has.
"""

from pathlib import Path
from typing import NamedTuple

from banger.base.files import ensure_private_directory
from banger.base.paths import find_paths
from banger.base.problem import Code, Problem, bad_request
from banger.base.progress import Progress
from banger.installation.watching import Watch, failing, run_watched
from banger.pinned.catalog import DIRECTORY, NAMES, Pinned, get_pinned
from banger.pinned.obtain import get_kept, is_whole, obtain_pinned


class SetUpTool(NamedTuple):
    """`fetched` is whether it had to be."""

    name: str
    version: str
    path: str
    fetched: bool


def set_up_tools(watch: Watch, *, name: str | None = None, brought: Path | None = None) -> list[SetUpTool]:
    """All, or the one that is named; out of the file that somebody has brought it is the one that is in there. Raises
    Failure."""
    with failing():
        wanted = [get_pinned(each) for each in ([name] if name else NAMES)]
        data = ensure_private_directory(Path(find_paths().data))
        directory = data / DIRECTORY
        before = {each.name: is_whole(get_kept(directory, each), each) for each in wanted}
        if brought is None:
            run_watched(watch, lambda progress: _obtain_all(wanted, directory, progress))
        else:
            wanted = [
                run_watched(watch, lambda progress: _obtain_brought(wanted, directory, progress, brought))
            ]
        return [
            SetUpTool(each.name, each.version, str(get_kept(directory, each)), not before[each.name])
            for each in wanted
        ]


async def _obtain_all(wanted: list[Pinned], directory: Path, progress: Progress) -> None:
    for pinned in wanted:
        await obtain_pinned(pinned, directory, progress)


async def _obtain_brought(wanted: list[Pinned], directory: Path, progress: Progress, brought: Path) -> Pinned:
    """The first that the file is; which one it is its content says."""
    refusals: list[Problem] = []
    for pinned in wanted:
        try:
            await obtain_pinned(pinned, directory, progress, brought=brought)
        except Problem as problem:
            if problem.code is not Code.OPERATION_FAILED:
                raise
            refusals.append(problem)
        else:
            return pinned
    if len(refusals) == 1:
        raise refusals[0]
    names = " nor ".join(f"{each.name} {each.version}" for each in wanted)
    raise bad_request(
        f"{brought} is neither {names}",
        hint=f"name the one that it is to be: banger setup tools {wanted[0].name} --from FILE",
    )
