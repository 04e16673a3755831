"""Layer 3: kernels and root file systems made from packages, sources and archives, without mounting anything."""
