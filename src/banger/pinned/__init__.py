"""Programs for guests that are fetched once, in a version and with a digest that are written down here."""
