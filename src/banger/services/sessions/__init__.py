"""Long commands in guests that outlive whoever started them: the host's knowledge of them, and the way to them."""
