"""Kernels: what VMs boot. Obtained once, published whole, given a new base initramfs with each new guest program."""

from banger.services.kernels.service import KernelService

__all__ = ["KernelService"]
