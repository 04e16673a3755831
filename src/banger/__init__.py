"""banger: real Linux virtual machines for developers, in one command."""

__version__ = "0.1.0"
