"""Layer 6: talks to the daemon: `blocking` for the CLI, `typed` for programs, both over one socket."""
