"""Layer 4: use cases. Each package owns its state and its lock; concrete VMMs and stores come in by wiring only."""
