"""devcontainer.json: the tools that its image and its features stand for. Pure.

Nothing of it runs: no image is pulled, and no command of its life cycle is called.
"""

import re
from collections.abc import Iterator
from typing import Any

from banger.model.tooling.found import Finding, Rank, Unmapped, show, want
from banger.model.tooling.text import find_line, find_table, find_text, parse_json

# Names of images (Docker's official ones, and those of the development containers) and of features.
_TOOLS = {
    **{"node": "node", "javascript-node": "node", "typescript-node": "node"},
    **{"python": "python", "miniconda": "python", "go": "go", "golang": "go", "rust": "rust", "ruby": "ruby"},
    **{
        "java": "java",
        "eclipse-temurin": "java",
        "php": "php",
        "dotnet": "dotnet",
        "bun": "bun",
        "deno": "deno",
    },
    **{
        "terraform": "terraform",
        "kubectl-helm-minikube": "kubectl",
        "github-cli": "gh",
        "aws-cli": "aws-cli",
    },
}
_IMAGES = frozenset(_TOOLS) - {"terraform", "kubectl-helm-minikube", "github-cli", "aws-cli", "miniconda"}
_IMAGE = re.compile(r"(?:[\w.-]+(?::\d+)?/)*([\w-]+)(?::([\w.-]+))?(?:@sha256:\w+)?")
_TAG = re.compile(r"(?:dev-)?(?:\d+(?:\.\d+)*-)??(\d+(?:\.\d+)*)(?:-[a-z][\w.-]*)?")
_CODE = (
    "postCreateCommand",
    "onCreateCommand",
    "updateContentCommand",
    "postStartCommand",
    "initializeCommand",
)
_BUILT = ("build", "dockerFile", "dockerComposeFile")
_NONE = frozenset({"none", "os-provided", "system", ""})


def read_devcontainer(text: str) -> Iterator[Finding]:
    data = parse_json(text, comments=True)
    image = find_text(data, "image")
    if image is not None:
        yield from _read_image(image, find_line(text, '"image"'))
    for key in _BUILT:
        if key in data:
            yield Unmapped(f"what {key} builds is not looked into", find_line(text, f'"{key}"'))
    for feature, options in find_table(data, "features").items():
        yield from _read_feature(feature, options, find_line(text, '"features"', feature))
    left = [key for key in _CODE if key in data]
    if left:
        yield Unmapped(f"{' and '.join(left)} is not run", find_line(text, f'"{left[0]}"'))


def _read_image(image: str, line: int) -> Iterator[Finding]:
    match = _IMAGE.fullmatch(image)
    if match is None or match[1] not in _IMAGES:
        yield Unmapped(f"no tool is known for the image {show(image)}", line)
        return
    tag = _TAG.fullmatch(match[2] or "")
    official = "/devcontainers/" not in image
    # Of the Dev Container project's images `1-` before the version, or alone, is the image's own version.
    number = (
        tag[1] if tag and (official or "." in tag[1] or tag[1] not in ("0", "1", "2", "3", "4")) else None
    )
    yield _want(_TOOLS[match[1]], number or "latest", line, image)


def _read_feature(feature: str, options: Any, line: int) -> Iterator[Finding]:
    name = feature.rpartition("/")[2].partition(":")[0].partition("@")[0]
    version = find_text({"options": options}, "options", "version") if isinstance(options, dict) else options
    if name not in _TOOLS:
        yield Unmapped(f"no tool is known for the feature {show(feature)}", line)
    elif not isinstance(version, str) or version == "latest":
        yield _want(_TOOLS[name], "latest", line, feature)
    elif version not in _NONE:
        yield _want(_TOOLS[name], version.removeprefix("v"), line, f"{feature} {version}")


def _want(tool: str, version: str, line: int, written: str) -> Finding:
    if version == "latest":
        version = {"node": "lts", "rust": "stable"}.get(tool, version)
    if tool == "java" and version[:1].isdigit():
        version = f"temurin-{version}"
    return want(tool, version, line, Rank.CONTAINER, written=written)
