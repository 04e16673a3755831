"""Layer 3: what must survive the daemon, in SQLite behind repositories. Services never see SQL."""
