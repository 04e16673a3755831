"""Coding agents in guests: their programs, and whether they serve."""
