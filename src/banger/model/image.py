"""Images: a root file system that many VMs share read-only, and the seed of their work disks."""

import msgspec


class ImageManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json` of a managed image; written last, so that an image without one does not exist.

    File names are relative to the image's directory; sizes in bytes. `virtual_size_bytes` is what the guest
    sees, `size_bytes` what the files take on the host's disk.
    """

    name: str
    id: str
    source: str
    recipe_digest: str
    created_at: str
    rootfs: str = "rootfs.ext4"
    rootfs_sha256: str = ""
    work_seed: str | None = None
    kernel: str | None = None
    os_release: dict[str, str] = {}
    virtual_size_bytes: int
    size_bytes: int


class ImageRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """What `image build` is asked for. Its digest names the result in the cache."""

    name: str
    preset: str = "debian"
    suite: str = "bookworm"
    packages: tuple[str, ...] = ()
    size_bytes: int = 8 * 1024**3
    tarball: str | None = None
