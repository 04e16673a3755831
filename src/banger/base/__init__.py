"""Layer 0: what any program needs and no word of the domain."""
