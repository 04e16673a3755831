"""Layer 7: the command line. Knows `banger.client` and nothing below."""
