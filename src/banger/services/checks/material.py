"""Are the default kernel and image here, so that the first VM starts in seconds?"""

from banger.api.system import Finding
from banger.services.checks.contract import CheckSurroundings, passed, warned


async def check(around: CheckSurroundings) -> Finding:
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
