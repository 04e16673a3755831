"""The lab: a virtual host with KVM, device-mapper, vhost-vsock and systemd, for tests that need a whole machine.

    recipe    what is in the host, and the digest of all that decides it
    build     root file system, kernel and initramfs of that recipe, kept below build/lab
    payload   the disk with what is tested: wheels, kernel, image, Firecracker
    host      one running lab: its QEMU, its disks, its channel
    channel   commands and files in and out, several at once
    monitor   QEMU's own socket
    states    a lab that has booted, written to disk once and restored in half a second

`inside/` is what runs in the lab. tests/lab has the fixtures and the scenarios; README.md there says how to use both.
"""
