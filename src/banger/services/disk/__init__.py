"""Tells what is on the disk, whose it is, and what could go."""
