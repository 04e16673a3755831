"""The back end that runs wherever QEMU does: microvm machines, on KVM or in software emulation."""
