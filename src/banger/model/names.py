"""Names of VMs, images and kernels, ids and references. Pure: randomness comes from the caller."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from banger.base.problem import Code, Outcome, Problem, bad_request, not_found

ID_LENGTH = 12
_MAX_LABEL = 63
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_HEX = frozenset("0123456789abcdef")
_LABELS_MAX, _KEY_MAX, _VALUE_MAX = 64, 63, 255
_LABEL_KEY = re.compile(r"[A-Za-z0-9._/-]+")
_MATERIAL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

ADJECTIVES = (
    "able", "amber", "ample", "bold", "brave", "brief", "bright", "brisk", "calm", "clear", "clever", "cool",
    "crisp", "deep", "eager", "early", "easy", "fair", "fast", "fine", "firm", "fleet", "fond", "free", "fresh",
    "gentle", "glad", "golden", "good", "grand", "green", "happy", "honest", "jolly", "keen", "kind", "lively",
    "lucky", "mellow", "merry", "mild", "neat", "nimble", "noble", "open", "patient", "plain", "polite", "proud",
    "quick", "quiet", "rapid", "ready", "rich", "round", "royal", "sharp", "shiny", "silent", "simple", "smart",
    "smooth", "snug", "sober", "solid", "spry", "steady", "still", "sunny", "swift", "tidy", "true", "vivid", "warm",
    "wise", "witty", "young", "zesty",
)  # fmt: skip
NOUNS = (
    "acorn", "alder", "aspen", "badger", "beech", "birch", "bison", "brook", "canyon", "cedar", "cliff", "cloud",
    "clover", "comet", "coral", "crane", "creek", "delta", "dune", "eagle", "elm", "ember", "falcon", "fern", "finch",
    "fjord", "forest", "fox", "glade", "grove", "harbor", "hare", "hawk", "hazel", "heron", "hill", "island", "ivy",
    "jay", "lagoon", "lake", "lark", "laurel", "lynx", "maple", "marsh", "meadow", "mesa", "moose", "moss", "oak",
    "otter", "owl", "peak", "pebble", "pine", "pond", "prairie", "quail", "raven", "reef", "ridge", "river", "robin",
    "sage", "salmon", "seal", "shore", "sparrow", "spruce", "stone", "stork", "summit", "swan", "thistle", "tiger",
    "trout", "tulip", "valley", "walnut", "willow", "wolf", "wren",
)  # fmt: skip


def validate_name(untrusted_name: str, *, what: str = "VM name") -> str:
    """A DNS label (RFC 1123): lower-case letters, digits and inner hyphens, at most 63."""
    name = untrusted_name
    if not name:
        raise bad_request(f"the {what} is empty", hint="use letters, digits and hyphens, for example web-1")
    if len(name) > _MAX_LABEL:
        raise bad_request(f"the {what} is {len(name)} characters long, at most {_MAX_LABEL} fit a DNS label")
    if not _LETTERS.issuperset(name) or name[0] == "-" or name[-1] == "-":
        raise bad_request(
            f"{untrusted_name!r} is not a {what}",
            hint="use lower-case letters, digits and inner hyphens, for example web-1",
        )
    return name


def is_material_name(name: str) -> bool:
    return _MATERIAL_NAME.fullmatch(name) is not None


def validate_material_name(noun: str, untrusted_name: str) -> str:
    """The name of an image or a kernel: a file name that is no option, not hidden and no path."""
    if not is_material_name(untrusted_name):
        raise bad_request(
            f"{untrusted_name!r} is not {'an' if noun[0] in 'aeiou' else 'a'} {noun}'s name",
            hint="use small letters, digits, dots and dashes, at most 63",
        )
    return untrusted_name


def compose_name(choice: int) -> str:
    """The adjective-noun pair that a non-negative random number picks."""
    return f"{ADJECTIVES[choice % len(ADJECTIVES)]}-{NOUNS[choice // len(ADJECTIVES) % len(NOUNS)]}"


class Named(NamedTuple):
    id: str
    name: str


def resolve_reference(untrusted_reference: str, known: Iterable[Named], *, what: str = "VM") -> str:
    """The id that a name, an id or a unique id prefix means; an exact name or id wins over a prefix.

    Raises `not_found`, or `ambiguous` with the candidates listed.
    """
    reference = untrusted_reference
    candidates: list[Named] = []
    for entry in known:
        if reference in (entry.name, entry.id):
            return entry.id
        if reference and _HEX.issuperset(reference) and entry.id.startswith(reference):
            candidates.append(entry)
    if not candidates:
        raise not_found(f"there is no {what} {reference!r}", hint=f"banger {what.lower()} list --all")
    if len(candidates) > 1:
        listed = ", ".join(f"{entry.id} ({entry.name})" for entry in candidates)
        raise Problem(
            Code.AMBIGUOUS,
            f"{reference!r} fits {len(candidates)} {what}s: {listed}",
            hint="use a longer prefix or the name",
            outcome=Outcome.NOT_STARTED,
        )
    return candidates[0].id


def validate_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Keys of letters, digits and `._/-`, values of one line. Raises `bad_request`."""
    if len(labels) > _LABELS_MAX:
        raise bad_request(f"{len(labels)} labels are too many", hint=f"a VM has at most {_LABELS_MAX}")
    for key, value in labels.items():
        if not 1 <= len(key) <= _KEY_MAX or not _LABEL_KEY.fullmatch(key):
            raise bad_request(
                f"{key[:80]!r} is no key of a label",
                hint=f"1 to {_KEY_MAX} letters, digits, '.', '_', '/', '-', for example team=blue",
            )
        if len(value) > _VALUE_MAX or not value.isprintable():
            raise bad_request(
                f"the value of the label {key} is too long or has control characters",
                hint=f"at most {_VALUE_MAX} characters on one line",
            )
    return dict(labels)
