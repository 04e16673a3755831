"""Java and its build tools: .java-version, .sdkmanrc, pom.xml, build.gradle. Pure.

A bare number is Temurin's build of it: OpenJDK's own builds of old releases get no fixes. Build files are searched by
pattern, never parsed: XML has entities, and Gradle is a program.
"""

import re
from collections.abc import Iterator

from banger.model.tooling.found import Finding, Rank, Unmapped, show, want
from banger.model.tooling.text import list_lines

_VENDOR = "temurin-"
# SDKMAN's suffixes, as mise calls these builds.
_VENDORS = {
    **{"tem": "temurin", "amzn": "corretto", "zulu": "zulu", "librca": "liberica", "open": "openjdk"},
    **{"graalce": "graalvm-community", "graal": "oracle-graalvm", "oracle": "oracle", "ms": "microsoft"},
    **{"sapmchn": "sapmachine", "kona": "kona", "albba": "dragonwell", "sem": "semeru-openj9"},
}
_SDKMAN_TOOLS = {"maven", "gradle", "kotlin", "scala", "sbt", "ant", "groovy", "leiningen", "jbang"}
_NUMBER = re.compile(r"(?:1\.)?(\d{1,3}(?:\.\d+){0,3}(?:\+\d+)?)")
_VENDORED = re.compile(r"([a-z][a-z0-9_-]*?)(?:64)?-(\d[\w.+-]*)")
_POM = re.compile(
    r"<(maven\.compiler\.release|maven\.compiler\.target|maven\.compiler\.source|java\.version|release)>"
    r"\s*([^<\s]{1,40})\s*</\1>"
)
_GRADLE = re.compile(
    r"(?:JavaLanguageVersion\.of|jvmToolchain)\s*\(\s*[\"']?([\d.]{1,9})[\"']?\s*\)"
    r"|(?:sourceCompatibility|targetCompatibility)[ \t]{0,20}=?[ \t]{0,20}(?:JavaVersion\.VERSION_|[\"'])?([\d._]{1,9})"
)


def read_java_version(text: str) -> Iterator[Finding]:
    """jenv's, a number or `VENDOR-NUMBER`."""
    for number, line in list_lines(text):
        if match := _VENDORED.fullmatch(line):
            version = f"{match[1]}-{_strip(match[2])}"
            yield want("java", version, number, Rank.OWN, written=line)
        else:
            yield _want_number(line, number, Rank.OWN)
        return


def read_sdkmanrc(text: str) -> Iterator[Finding]:
    for number, line in list_lines(text):
        name, _, version = (part.strip() for part in line.partition("="))
        if name == "java":
            yield _want_sdkman(version, number)
        elif name in _SDKMAN_TOOLS:
            yield want(name, version, number, Rank.OWN)
        else:
            yield Unmapped(f"mise has no {show(name)}", number)


def read_pom(text: str) -> Iterator[Finding]:
    """The first that is a number: properties refer to one another."""
    for match in _POM.finditer(text):
        if _NUMBER.fullmatch(match[2]):
            yield _want_number(match[2], text.count("\n", 0, match.start()) + 1, Rank.NEEDED)
            return


def read_gradle(text: str) -> Iterator[Finding]:
    for match in _GRADLE.finditer(text):
        written = (match[1] or match[2]).replace("_", ".").strip(".")
        yield _want_number(written, text.count("\n", 0, match.start()) + 1, Rank.NEEDED)
        return


def _want_number(written: str, line: int, rank: Rank) -> Finding:
    match = _NUMBER.fullmatch(written)
    if match is None:
        return Unmapped(f"{show(written)} is no version of java that mise takes", line)
    return want("java", _VENDOR + match[1], line, rank, written=written)


def _want_sdkman(written: str, line: int) -> Finding:
    version, _, suffix = written.rpartition("-")
    vendor = _VENDORS.get(suffix)
    if vendor is None:
        return Unmapped(f"no builds {show(written)} of java are known", line)
    return want("java", f"{vendor}-{version}", line, Rank.OWN, written=written)


def _strip(version: str) -> str:
    return version[2:] if version.startswith("1.") else version
