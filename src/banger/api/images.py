"""Methods on images and kernels."""

from typing import Annotated

import msgspec

from banger.api.method import Effect, Kind, Nothing, Request, declare, field
from banger.model.image import ImageManifest
from banger.model.kernel import KernelManifest

ImageName = Annotated[str, field("name of an image", positional=True, metavar="IMAGE")]
KernelName = Annotated[str, field("name of a kernel", positional=True, metavar="KERNEL")]


class Images(msgspec.Struct, frozen=True, kw_only=True):
    images: list[ImageManifest]


class AvailableKernel(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    pulled: bool
    release: str | None = None
    size_bytes: int | None = None


class Kernels(msgspec.Struct, frozen=True, kw_only=True):
    kernels: list[AvailableKernel]


@declare("image.list")
class ImageList(Request[Images]):
    """Lists the images on this machine."""


@declare("image.show")
class ImageShow(Request[ImageManifest]):
    """Everything known about one image."""

    image: ImageName


@declare("image.build", effect=Effect.CHANGE, kind=Kind.OPERATION)
class ImageBuild(Request[ImageManifest]):
    """Builds an image: the default one, one with more packages, or one from a tar archive of any userland."""

    image: Annotated[
        str | None,
        field("name of the image; default the configured default", positional=True, metavar="IMAGE"),
    ] = None
    from_tar: Annotated[
        str | None, field("root file system as tar, plain or compressed", flag="from-tar")
    ] = None
    packages: Annotated[list[str], field("additional package, repeatable", flag="package")] = []
    kernel: Annotated[str | None, field("kernel that VMs of this image boot by default")] = None
    size_bytes: Annotated[int | None, field("size of the root file system", flag="size", unit="bytes")] = None
    force: Annotated[bool, field("build again even if it is there", short="f")] = False


@declare("image.delete", effect=Effect.DESTROY)
class ImageDelete(Request[Nothing]):
    """Deletes an image that no VM uses."""

    image: ImageName


@declare("kernel.list")
class KernelList(Request[Kernels]):
    """Lists the kernels on this machine, or all that can be pulled."""

    available: Annotated[bool, field("those that can be pulled too")] = False


@declare("kernel.show")
class KernelShow(Request[KernelManifest]):
    """Everything known about one kernel."""

    kernel: KernelName


@declare("kernel.pull", effect=Effect.CHANGE, kind=Kind.OPERATION)
class KernelPull(Request[KernelManifest]):
    """Obtains a kernel of the catalog."""

    kernel: Annotated[str, field("name of a kernel", positional=True, metavar="KERNEL")] = "debian-cloud"
    force: Annotated[bool, field("again even if it is there", short="f")] = False


@declare("kernel.delete", effect=Effect.DESTROY)
class KernelDelete(Request[Nothing]):
    """Deletes a kernel that no VM uses."""

    kernel: KernelName
