"""Files of one VM, or of its image, that are not what they should be: nobody else has to do with it."""

import shutil
from pathlib import Path

import pytest

from banger.api.vm import VmCreate, VmDelete, VmPrune, VmShow
from banger.base.problem import Code, Problem
from banger.base.progress import Silent
from banger.services.vms import live
from banger.services.vms.layout import Layout

QUIET = Silent()


@pytest.fixture
async def odd(vms, world):
    """A VM whose directory is a file."""
    vm = (await vms.create(VmCreate(name="odd", start=False), QUIET)).vm
    directory = world.root / "vms" / vm.id
    shutil.rmtree(directory)
    directory.write_text("a file")
    return vm


async def test_a_broken_directory_is_shown_keeps_nobody_from_creating_and_goes(vms, world, odd):
    assert vms.show(VmShow(vm="odd")).disk_use.work_bytes == 0
    await vms.create(VmCreate(name="web", start=False), QUIET)
    for name in ("odd", "web"):
        await vms.delete(VmDelete(vm=name), QUIET)
    assert world.leftovers() == []


async def test_prune_goes_on_after_one_that_cannot_be_removed_and_says_so(vms, world, monkeypatch):
    rows = {}
    for name in ("a", "b", "c"):
        rows[name] = (await vms.create(VmCreate(name=name, start=False), QUIET)).vm
    remove = Layout.remove

    def fail(layout):
        if layout.state.name == rows["b"].id:
            raise OSError(5, "Input/output error")
        remove(layout)

    with monkeypatch.context() as broken:
        broken.setattr(Layout, "remove", fail)
        pruned = await vms.prune(VmPrune())
    assert pruned.vms == ["a", "c"]
    assert [(each.name, each.goes) for each in pruned.verdicts] == [("a", True), ("b", False), ("c", True)]
    assert pruned.verdicts[1].why == "could not be removed: [Errno 5] Input/output error"
    assert [each.failed for each in pruned.verdicts] == [False, True, False]
    assert pruned.verdicts[1].frees_bytes == 0
    assert [vm.name for vm in world.store.vms.list()] == ["b"]
    await vms.delete(VmDelete(vm="b"), QUIET)
    assert world.leftovers() == []


class TestAnImageThatIsDeletedWhileAVmIsMadeOfIt:
    async def test_it_is_made_again_if_that_happens_while_the_kernel_comes(self, vms, world, monkeypatch):
        """As the real shelf does: what is not there is built."""
        place, elsewhere = world.root / "image", world.root / "elsewhere"
        ensure_kernel, ensure_image = world.around.kernels.ensure, world.around.images.ensure

        async def kernel(progress, name):
            place.rename(elsewhere)
            return await ensure_kernel(progress, name)

        async def image(progress, name):
            if elsewhere.exists():
                elsewhere.rename(place)
            return await ensure_image(progress, name)

        monkeypatch.setattr(world.around.kernels, "ensure", kernel)
        monkeypatch.setattr(world.around.images, "ensure", image)
        await vms.create(VmCreate(name="web", start=False), QUIET)
        assert place.exists()

    @pytest.mark.parametrize(
        ("file", "code"), [("work-seed.ext4", Code.CONFLICT), ("rootfs.ext4", Code.NOT_FOUND)]
    )
    async def test_it_is_a_problem_that_leaves_nothing(self, vms, world, monkeypatch, file, code):
        ensure = world.around.images.ensure

        async def image(progress, name):
            stored = await ensure(progress, name)
            (stored.directory / file).unlink(missing_ok=True)
            return stored

        monkeypatch.setattr(world.around.images, "ensure", image)
        with pytest.raises(Problem) as caught:
            await vms.create(VmCreate(name="web", start=False), QUIET)
        assert caught.value.code is code
        assert world.leftovers() == []


async def test_a_log_that_cannot_be_bounded_hinders_no_other_and_is_tried_again(vms, world, monkeypatch):
    await vms.create(VmCreate(name="web"), QUIET)
    seen = []

    class Enough(BaseException):
        pass

    def bound(log, *, limit_bytes):
        seen.append(Path(log).name)
        if len(seen) == 4:
            raise Enough
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(live, "_LOG_CHECK_S", 0)
    monkeypatch.setattr(live, "bound_log", bound)
    with pytest.raises(Enough):
        await live.bound_logs(vms._life.live, world.around.layouts)
    assert seen == ["serial.log", "vmm.log"] * 2
