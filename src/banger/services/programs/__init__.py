"""Pinned programs in guests: put there once, by whoever needs them."""
