"""Layer 3: virtual machine monitors behind one contract. The back ends do not know each other."""
