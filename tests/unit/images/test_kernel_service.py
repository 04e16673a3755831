import asyncio

import pytest

from banger.base.problem import Code, Problem

NAME = "debian-cloud"


async def test_ensure_pulls_once(kernels, builder, heard):
    manifest, directory = await kernels.ensure(heard)
    assert (await kernels.ensure(heard)).directory == directory
    assert builder.builds == 1
    assert (
        (directory / manifest.base_initramfs).read_bytes().endswith((directory / "modules.cpio").read_bytes())
    )
    assert b"guest 1" in (directory / manifest.base_initramfs).read_bytes()
    assert manifest.boot_modules == ("virtio",)


async def test_a_new_guest_program_rewrites_the_initramfs_only(kernels, builder, heard, guest_program):
    before, directory = await kernels.ensure(heard)
    guest_program.write_bytes(b"\x7fELF guest 2")
    after, same = await kernels.ensure(heard)
    assert (builder.builds, same) == (1, directory)
    assert b"guest 2" in (directory / after.base_initramfs).read_bytes()
    assert (directory / before.base_initramfs).exists()  # a VM may be about to read it
    assert after.vmlinux_sha256 == before.vmlinux_sha256
    await kernels.get(NAME)
    guest_program.write_bytes(b"\x7fELF guest 3")
    await kernels.ensure(heard)
    assert not (directory / before.base_initramfs).exists()
    await kernels.get(NAME)


async def test_many_at_once_share_one_pull(kernels, builder, heard):
    builder.gate.clear()
    tasks = [asyncio.ensure_future(kernels.ensure(type(heard)())) for _ in range(5)]
    await builder.begun.wait()
    builder.gate.set()
    results = await asyncio.gather(*tasks)
    assert builder.builds == 1
    assert len({stored.directory for stored in results}) == 1


async def test_a_missing_guest_program_is_said_before_the_pull(kernels, builder, heard, guest_program):
    guest_program.unlink()
    with pytest.raises(Problem, match="guest program"):
        await kernels.ensure(heard)
    assert builder.builds == 0


@pytest.mark.parametrize("file", ["vmlinux", "modules.ext4", "base"])
async def test_damage_is_noticed_and_force_repairs_it(kernels, heard, file):
    manifest, directory = await kernels.ensure(heard)
    path = directory / (manifest.base_initramfs if file == "base" else file)
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(Problem) as caught:
        await kernels.ensure(heard)
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.hint == f"banger kernel pull --force {NAME}"
    await kernels.pull(NAME, heard, force=True)
    await kernels.ensure(heard)


async def test_the_catalog_knows_its_names(kernels, heard):
    assert NAME in [entry.name for entry in kernels.available()]
    with pytest.raises(Problem) as caught:
        await kernels.pull("nothing", heard)
    assert caught.value.hint == "banger kernel list --available"
    with pytest.raises(Problem) as caught:
        await kernels.get("small")
    assert caught.value.hint == "banger kernel pull small"


async def test_a_kernel_is_known_when_the_catalog_has_it_or_it_is_here(kernels):
    await kernels.verify_known("small")
    with pytest.raises(Problem) as caught:
        await kernels.verify_known("nothing")
    assert (caught.value.code, caught.value.hint) == (Code.NOT_FOUND, "banger kernel list --available")


async def test_delete_asks_who_uses_it(kernels, heard, users):
    manifest, _ = await kernels.ensure(heard)
    users[manifest.id] = ["quick-fox"]
    with pytest.raises(Problem) as caught:
        await kernels.delete(NAME, heard)
    assert caught.value.code is Code.CONFLICT
    users.clear()
    await kernels.delete(NAME, heard)
    assert await kernels.list_kernels() == []
