"""Layer 5: the daemon: open, serve, close, doctor."""
