"""Are the default kernel and image here, so that the first VM starts in seconds?"""

from collections.abc import Iterable
from pathlib import Path

from banger.api.system import Finding
from banger.images.catalog import IMAGES, KERNELS
from banger.services.checks.contract import CheckSurroundings, failed, passed, warned


async def check(around: CheckSurroundings) -> Finding:
    """A name that is neither here nor in the catalog never will be: no VM can be created by default."""
    for noun, wanted, here, known in (
        ("kernel", around.config.default_kernel, around.kernels, [entry.name for entry in KERNELS]),
        ("image", around.config.default_image, around.images, [recipe.name for recipe in IMAGES]),
    ):
        names = {*known, *_list_names(here)}
        if wanted not in names:
            there = ", ".join(sorted(names))
            text = f'default_{noun} = "{wanted}": no such {noun}; there are {there}'
            return failed("kernel and image", text, f"banger {noun} list")
    missing = []
    if not (around.kernels / around.config.default_kernel / "manifest.json").is_file():
        missing.append(f"kernel {around.config.default_kernel}")
    if not (around.images / around.config.default_image / "manifest.json").is_file():
        missing.append(f"image {around.config.default_image}")
    if missing:
        return warned(
            "kernel and image",
            f"{' and '.join(missing)} will be made by the first VM (a minute or two)",
            f"banger image build {around.config.default_image}",
        )
    return passed(
        "kernel and image", f"{around.config.default_kernel} and {around.config.default_image} are here"
    )


def _list_names(directory: Path) -> Iterable[str]:
    return (
        entry.name
        for entry in directory.glob("*")
        if (entry / "manifest.json").is_file() and "@" not in entry.name
    )
