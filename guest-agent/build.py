"""Builds the guest's init and agent: static programs for each architecture, by ziglang.

Owns the compiler's flags and the decision whether an output is up to date. Refuses any dependency but the
standard library: it runs inside the hatch build hook, before anything is installed. Each output has a `.digest`
file beside it, over the sources and flags it was built from; the agent reports its beginning as its version.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCE_DIR = Path(__file__).resolve().parent / "src"
ARCHES = ("x86_64", "aarch64")
PROTOCOL_VERSION = "1"
BUILD_TIMEOUT_S = 600  # the first compile of a fresh cache builds musl, too
FLAGS = (
    "-static",
    "-Os",
    "-s",
    "-std=gnu17",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffunction-sections",
    "-fdata-sections",
    "-Wl,--gc-sections",
)


class BuildError(Exception):
    """The compiler is missing or refused the sources; the text holds its last lines."""


def output_name(arch: str) -> str:
    return f"banger-init-{arch}"


def find_sources() -> list[Path]:
    return sorted(SOURCE_DIR.glob("*.[ch]"))


def source_digest() -> str:
    """Hex SHA-256 over the flags and every source with its name."""
    digest = hashlib.sha256(repr((FLAGS, PROTOCOL_VERSION)).encode())
    for path in find_sources():
        digest.update(f"\0{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def agent_version(digest: str) -> str:
    """What WELCOME carries as the agent's version."""
    return f"{PROTOCOL_VERSION}+{digest[:12]}"


def compile_argv(arch: str, version: str, output: Path) -> tuple[str, ...]:
    sources = (str(path) for path in find_sources() if path.suffix == ".c")
    return (
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        f"{arch}-linux-musl",
        *FLAGS,
        f'-DBANGER_AGENT_VERSION="{version}"',
        *sources,
        "-o",
        str(output),
    )


def _compile(arch: str, version: str, output: Path) -> None:
    # Beside the output and renamed: whoever boots a guest meanwhile reads a whole program.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build-") as scratch:
        fresh = Path(scratch) / output.name
        try:
            done = subprocess.run(
                compile_argv(arch, version, fresh),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BUILD_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as problem:
            raise BuildError(f"ziglang took more than {BUILD_TIMEOUT_S} s for {arch}") from problem
        if done.returncode != 0:
            last = "\n".join(done.stderr.splitlines()[-20:])
            raise BuildError(f"ziglang failed for {arch} (status {done.returncode}):\n{last}")
        fresh.chmod(0o755)
        fresh.replace(output)


def build(out_dir: Path, arches: Sequence[str] = ARCHES) -> list[Path]:
    """Brings `banger-init-ARCH` in out_dir up to date. Returns their paths; raises BuildError."""
    out_dir.mkdir(parents=True, exist_ok=True)
    digest = source_digest()
    outputs: list[Path] = []
    for arch in arches:
        output = out_dir / output_name(arch)
        stamp = out_dir / f"{output_name(arch)}.digest"
        if not (output.exists() and stamp.exists() and stamp.read_text().strip() == digest):
            stamp.unlink(missing_ok=True)
            print(f"• guest program for {arch}", file=sys.stderr)
            _compile(arch, agent_version(digest), output)
            stamp.write_text(f"{digest}\n")
        outputs.append(output)
    return outputs


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the guest's init and agent")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--arch", action="append", choices=ARCHES, help="default: all")
    options = parser.parse_args(argv)
    try:
        build(options.out_dir, options.arch or ARCHES)
    except BuildError as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
