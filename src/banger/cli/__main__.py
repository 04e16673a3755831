"""`python -m banger.cli`."""

from banger.cli.main import entry

entry()
