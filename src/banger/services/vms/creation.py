"""A new VM: what is refused before there is one, its row, its files, its first start.

Owns no state. The row is the promise that the rest will be removed if it is not finished: from its writing on, any
failure removes all of it, here or at the next daemon's start.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from banger.api.vm import VmCreate
from banger.base.problem import conflict
from banger.base.progress import Progress, name_object, stage
from banger.base.tasks import Supervisor
from banger.model.image import ImageManifest
from banger.model.names import ID_LENGTH
from banger.model.vm import VmRecord, VmSpec
from banger.services.images.service import StoredImage
from banger.services.vms import preparation
from banger.services.vms.capabilities.contract import Wants
from banger.services.vms.changes import refuse_taken
from banger.services.vms.lifecycle import Lifecycle
from banger.services.vms.preparation import Ground
from banger.services.vms.room import Room
from banger.services.vms.rows import Rows
from banger.services.vms.surroundings import Surroundings


class Creation:
    def __init__(
        self, around: Surroundings, rows: Rows, room: Room, life: Lifecycle, tasks: Supervisor
    ) -> None:
        self._around = around
        self._rows = rows
        self._room = room
        self._life = life
        self._tasks = tasks

    async def create(self, request: VmCreate, progress: Progress) -> VmRecord:
        """Refused specifications leave no row; any later failure leaves none either."""
        vm, ground = await self._reserve(request, progress)
        name_object(progress, vm.id, vm.name)
        async with self._rows.lock(vm.id):
            try:
                with stage(progress, "prepare disks"):
                    layout = self._around.layouts.of(vm.id)
                    with _translated_removal(ground.image, ground.directory):
                        await preparation.prepare_files(vm, layout, ground, self._life.capabilities)
                    vm = self._rows.update(vm, prepared=True)
                if request.start:
                    vm = await self._life.start(vm, progress)
            except BaseException:
                await self._tasks.finish(self._life.remove(vm), name=f"undo {vm.id}")
                raise
        if not request.start:
            return vm
        try:
            await self._life.wait_started(vm, progress, Wants(request.wait_ssh, request.wait_opencode))
        except BaseException:
            await self._tasks.finish(self._remove(vm.id), name=f"undo {vm.id}")
            raise
        return self._rows.find(vm.id) or vm

    async def _remove(self, vm_id: str) -> None:
        async with self._rows.locked_if_there(vm_id) as vm:
            if vm is not None:
                await self._life.remove(vm)

    async def _reserve(self, request: VmCreate, progress: Progress) -> tuple[VmRecord, Ground]:
        """Everything that can be refused, from cheap to dear; the last of it and the row in one go."""
        around = self._around
        self._rows.pick_name(request.name)
        spec = preparation.settle_spec(request, around.config, around.host)
        self._room.admit_new(spec, None, start=request.start)
        if request.start:
            refuse_taken(spec.publish, self._rows.list())
            preparation.check_ports(spec)  # refused now, not after minutes of making an image
        standing = await (around.networks.choose() if request.start else around.networks.settle())
        driver = await around.backends.choose_driver(standing)
        (image, image_directory), kernel_name = await self._ensure_material(progress, spec)
        with _translated_removal(image, image_directory):
            preparation.check_disk_sizes(spec, image, image_directory)
            self._room.check_root(driver, image_directory)
        ground = Ground(image, image_directory, driver)
        self._room.admit_new(spec, driver.name, start=request.start)
        vm = preparation.compose_record(
            around.entropy.hexadecimal(ID_LENGTH),
            self._rows.pick_name(request.name),
            msgspec.structs.replace(spec, kernel=kernel_name),
            request,
            ground,
        )
        self._rows.insert(vm)
        return vm, ground

    async def _ensure_material(self, progress: Progress, spec: VmSpec) -> tuple[StoredImage, str]:
        """With the name of its kernel. The image says which that is, and comes again after it: a kernel may take
        minutes, in which anybody may delete an image that no row names yet."""
        around = self._around

        def name_kernel(image: StoredImage) -> str:
            return spec.kernel or image.manifest.kernel or around.config.default_kernel

        image = await around.images.ensure(progress, spec.image)
        await around.kernels.ensure(progress, name_kernel(image))
        image = await around.images.ensure(progress, spec.image)
        return image, name_kernel(image)


@contextmanager
def _translated_removal(image: ImageManifest, directory: Path) -> Iterator[None]:
    """Until the row is written, an image can be removed under our hands."""
    try:
        yield
    except FileNotFoundError as error:
        if error.filename is None or not Path(error.filename).is_relative_to(directory):
            raise
        raise conflict(
            f"image {image.name} was removed while a VM was being made of it", hint="banger image list"
        ) from error
