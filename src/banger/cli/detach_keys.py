"""The keys that leave a session without ending it, found among what is typed."""

from __future__ import annotations

from banger.cli.values import refuse

DEFAULT = "ctrl-p,ctrl-q"
_HINT = "letters, digits or ctrl-LETTER, separated by commas, for example ctrl-p,ctrl-q"
_CONTROL = "ctrl-"


def parse_detach_keys(text: str) -> bytes:
    """The bytes that a terminal sends for them. Raises Failure."""
    return bytes(_parse_key(key, text) for key in text.split(","))


def _parse_key(key: str, text: str) -> int:
    if len(key) == 1 and "!" <= key <= "~":
        return ord(key)
    letter = key[len(_CONTROL) :].lower()
    if (
        key.lower().startswith(_CONTROL)
        and len(letter) == 1
        and letter in "abcdefghijklmnopqrstuvwxyz@[\\]^_"
    ):
        return ord(letter.upper()) & 0x1F
    raise refuse(f"--detach-keys {text!r}: {key!r} is not a key", hint=_HINT)


class DetachKeys:
    """What was typed so far of the keys. A beginning of them is kept back until it is clear that it goes on
    otherwise."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._typed = 0
        self.found = False

    def feed(self, data: bytes) -> bytes:
        """What is for the program. Once the keys are found, nothing more is."""
        kept = self._keys[: self._typed] + data
        self._typed = 0
        at = kept.find(self._keys)
        if at >= 0:
            self.found = True
            return kept[:at]
        for length in range(min(len(self._keys) - 1, len(kept)), 0, -1):
            if kept.endswith(self._keys[:length]):
                self._typed = length
                return kept[:-length]
        return kept
