"""Layer 1: the domain as immutable data and pure rules. No I/O, no clock, no randomness, no asyncio."""
