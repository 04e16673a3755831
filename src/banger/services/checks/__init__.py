"""The doctor: one file for each check. Checks try things, change nothing, and name the fix as a command."""
