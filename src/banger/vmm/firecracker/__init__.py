"""The back end that is the product's: microVMs on Firecracker, where KVM really runs guests."""
