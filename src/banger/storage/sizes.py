"""How large a root disk is: as asked for, and never smaller than the image that it stands on."""

from pathlib import Path

from banger.base.problem import Code, Outcome, Problem

SECTOR_BYTES = 512


def plan_size(image: Path, size_bytes: int, *, unit_bytes: int = SECTOR_BYTES) -> int:
    """In bytes; whole sectors, or whatever else a driver reckons in. Raises `not_found`."""
    try:
        below = image.stat().st_size
    except FileNotFoundError as error:
        raise Problem(
            Code.NOT_FOUND,
            f"the image file {image} is missing",
            hint="banger image list",
            outcome=Outcome.NOT_STARTED,
        ) from error
    return -(-max(below, size_bytes) // unit_bytes) * unit_bytes
