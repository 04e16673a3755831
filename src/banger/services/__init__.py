"""Layer 4: use cases. Each package owns its state and its lock; adapters come in by wiring only."""
