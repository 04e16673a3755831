import asyncio
import errno
import fcntl
import os

import pytest

from banger.base.problem import Code, Problem
from banger.model.image import ImageManifest, ImageRecipe
from banger.services.images import ImageService

NAME = "debian-bookworm"


async def test_ensure_builds_once_and_then_finds(images, builder, heard, tmp_path, visible):
    manifest, directory = await images.ensure(heard)
    assert (await images.ensure(heard)) == (manifest, directory)
    assert builder.builds == 1
    assert manifest.os_release == {"ID": "fake"}
    assert manifest.virtual_size_bytes == 10_000
    assert heard.said == ["> fake work", "<", "> publish image", "<"]
    assert visible(tmp_path / "images") == [NAME, f"{NAME}@{manifest.id}"]
    assert [image.name for image in await images.list_images()] == [NAME]


async def test_two_at_once_share_one_build_and_hear_the_same(images, builder, heard):
    builder.gate.clear()
    late = type(heard)()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(images.ensure(heard))
        await builder.begun.wait()
        second = group.create_task(images.ensure(late))
        while not late.said:
            await asyncio.sleep(0)
        builder.gate.set()
    assert first.result() == second.result()
    assert builder.builds == 1
    assert late.said == heard.said == ["> fake work", "<", "> publish image", "<"]


async def test_one_waiter_leaving_does_not_end_the_build_for_the_other(images, builder, heard):
    builder.gate.clear()
    recipe = ImageRecipe(name=NAME)
    leaver = asyncio.ensure_future(images.build(recipe, heard))
    await builder.begun.wait()
    stayer = asyncio.ensure_future(images.build(recipe, late := type(heard)()))
    while not late.said:
        await asyncio.sleep(0)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    builder.gate.set()
    assert (await stayer).manifest.name == NAME
    assert (builder.builds, builder.cancelled) == (1, 0)


async def test_the_last_waiter_leaving_ends_the_build_and_nothing_stays(
    images, builder, heard, tmp_path, visible
):
    builder.gate.clear()
    only = asyncio.ensure_future(images.ensure(heard))
    await builder.begun.wait()
    only.cancel()
    with pytest.raises(asyncio.CancelledError):
        await only
    assert builder.cancelled == 1
    assert visible(tmp_path / "images") == []
    builder.gate.set()
    await images.ensure(heard)


async def test_another_process_building_the_same_is_waited_for(images, builder, heard, tmp_path):
    """Two services are two lock holders, as two processes are."""
    other = ImageService(tmp_path / "images", builders={"debian": builder.image})
    builder.gate.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(images.ensure(heard))
        await builder.begun.wait()
        second = group.create_task(other.ensure(late := type(heard)()))
        while not late.said:
            await asyncio.sleep(0)
        builder.gate.set()
    assert first.result() == second.result()
    assert builder.builds == 1
    assert late.said == [f"> wait for the other process working on {NAME}", "<"]


async def test_a_waiter_for_another_process_can_be_cancelled(images, heard, tmp_path):
    (tmp_path / "images").mkdir(mode=0o700)
    lock = os.open(tmp_path / "images" / f".lock@{NAME}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiter = asyncio.ensure_future(images.ensure(heard))
        while not heard.said:
            await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    finally:
        os.close(lock)
    await images.ensure(heard)


async def test_different_images_do_not_wait_for_each_other(images, builder, heard):
    builder.gate.clear()
    held = asyncio.ensure_future(images.ensure(heard))
    await builder.begun.wait()
    builder.begun.clear()
    other = asyncio.ensure_future(images.build(ImageRecipe(name="other"), type(heard)()))
    async with asyncio.timeout(5):
        await builder.begun.wait()
        builder.gate.set()
        await held
        await other


async def test_the_kernel_of_the_recipe_is_the_choice_of_the_image(images, builder, heard):
    plain = await images.build(ImageRecipe(name="dev"), heard)
    small = await images.build(ImageRecipe(name="dev", kernel="small"), heard)
    assert (plain.manifest.kernel, small.manifest.kernel, builder.builds) == (None, "small", 2)
    assert plain.manifest.recipe_digest != small.manifest.recipe_digest


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Problem(Code.OPERATION_FAILED, "mmdebstrap failed"), Code.OPERATION_FAILED),
        (OSError(errno.ENOSPC, "No space left on device"), Code.NO_SPACE),
    ],
)
async def test_a_failed_build_leaves_nothing(images, builder, heard, tmp_path, visible, failure, code):
    builder.failure = failure
    with pytest.raises(Problem) as caught:
        await images.ensure(heard)
    assert caught.value.code is code
    assert visible(tmp_path / "images") == []


async def test_a_failed_rebuild_leaves_what_was_there(images, builder, heard):
    before = await images.ensure(heard)
    builder.failure = Problem(Code.OPERATION_FAILED, "no")
    with pytest.raises(Problem):
        await images.build(ImageRecipe(name=NAME), heard, force=True)
    assert await images.get(NAME) == before


async def test_what_a_killed_builder_left_is_swept_by_the_next(images, heard, tmp_path, visible):
    left = tmp_path / "images" / f".building@{NAME}@dead"
    left.mkdir(mode=0o700, parents=True)
    (tmp_path / "images").chmod(0o700)
    (left / "rootfs.ext4").write_bytes(b"half")
    unlinked = tmp_path / "images" / f"{NAME}@cafe"
    unlinked.mkdir()
    assert await images.list_images() == []
    manifest, _ = await images.ensure(heard)
    assert visible(tmp_path / "images") == [NAME, f"{NAME}@{manifest.id}"]


async def test_sweep_leaves_what_another_process_is_building(images, builder, heard, tmp_path, visible):
    builder.gate.clear()
    build = asyncio.ensure_future(images.ensure(heard))
    await builder.begun.wait()
    await ImageService(tmp_path / "images").sweep()
    assert len(visible(tmp_path / "images")) == 1
    builder.gate.set()
    await build


async def test_a_new_recipe_is_built_and_the_old_build_goes_unless_used(
    images, builder, heard, users, tmp_path, visible
):
    old = await images.ensure(heard)
    users[old.manifest.id] = ["quick-fox"]
    new = await images.build(ImageRecipe(name=NAME, packages=("vim",)), heard)
    assert builder.builds == 2
    assert old.directory.exists()
    assert (await images.get(NAME)) == new
    users.clear()
    await images.sweep()
    assert visible(tmp_path / "images") == [NAME, f"{NAME}@{new.manifest.id}"]


async def test_the_same_recipe_is_not_built_again_unless_forced(images, builder, heard):
    first = await images.build(ImageRecipe(name=NAME, packages=("a1", "b2")), heard)
    assert await images.build(ImageRecipe(name=NAME, packages=("b2", "a1")), heard) == first
    assert (await images.build(ImageRecipe(name=NAME, packages=("a1", "b2")), heard, force=True)) != first
    assert builder.builds == 2


async def test_an_image_in_use_is_not_deleted(images, heard, users, tmp_path, visible):
    manifest, _ = await images.ensure(heard)
    users[manifest.id] = ["quick-fox", "slow-ox"]
    with pytest.raises(Problem, match="quick-fox, slow-ox") as caught:
        await images.delete(NAME, heard)
    assert caught.value.code is Code.CONFLICT
    users.clear()
    await images.delete(NAME, heard)
    assert visible(tmp_path / "images") == []
    with pytest.raises(Problem) as caught:
        await images.delete(NAME, heard)
    assert caught.value.code is Code.NOT_FOUND


@pytest.mark.parametrize("file", ["manifest.json", "rootfs.ext4", "work-seed.ext4"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage"])
async def test_damage_is_noticed_and_the_hint_repairs_it(images, heard, file, damage):
    _, directory = await images.ensure(heard)
    path = directory / file
    size = path.stat().st_size
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"" if damage == "empty" else b"\xff" * size)
    with pytest.raises(Problem) as caught:
        await images.get(NAME)
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.hint == f"banger image build --force {NAME}"
    assert "\n" not in caught.value.brief
    assert await images.list_images() == []
    await images.build(ImageRecipe(name=NAME), heard, force=True)
    await images.get(NAME)


async def test_a_damaged_image_can_be_deleted(images, heard, tmp_path, visible):
    _, directory = await images.ensure(heard)
    (directory / "manifest.json").write_bytes(b"{")
    await images.delete(NAME, heard)
    assert visible(tmp_path / "images") == []


async def test_images_that_cannot_be_listed_are_one_line(images, tmp_path):
    (tmp_path / "images").write_text("no directory")
    with pytest.raises(Problem, match="images cannot be read: Not a directory") as caught:
        await images.list_images()
    assert (caught.value.code, caught.value.hint) == (Code.UNAVAILABLE, f"ls -ld {tmp_path / 'images'}")


@pytest.mark.parametrize(
    ("name", "code", "hint"),
    [
        (NAME, Code.NOT_FOUND, f"banger image build {NAME}"),
        ("nothing", Code.NOT_FOUND, "banger image list"),
        ("../etc", Code.BAD_REQUEST, "small letters"),
        ("", Code.BAD_REQUEST, "small letters"),
        ("a@b", Code.BAD_REQUEST, "small letters"),
        (".lock", Code.BAD_REQUEST, "small letters"),
        ("x" * 64, Code.BAD_REQUEST, "small letters"),
    ],
)
async def test_an_unknown_name_is_one_line_with_a_hint(images, name, code, hint):
    with pytest.raises(Problem) as caught:
        await images.get(name)
    assert caught.value.code is code
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "recipe",
    [
        ImageRecipe(name="x", size_bytes=0),
        ImageRecipe(name="x", size_bytes=2**60),
        ImageRecipe(name="x", packages=("--hook=evil",)),
        ImageRecipe(name="x", packages=("a,b",)),
        ImageRecipe(name="x", packages=("./a.deb",)),
        ImageRecipe(name="x", suite="--help"),
        ImageRecipe(name="x", preset="slackware"),
        ImageRecipe(name="x", tarball="relative.tar"),
        ImageRecipe(name="X Y"),
    ],
)
async def test_a_bad_recipe_is_refused_before_anything_is_made(images, heard, recipe, tmp_path):
    with pytest.raises(Problem) as caught:
        await images.build(recipe, heard)
    assert caught.value.code is Code.BAD_REQUEST
    assert not (tmp_path / "images").exists()


async def test_a_missing_archive_is_not_found(images, heard, tmp_path):
    with pytest.raises(Problem) as caught:
        await images.build(ImageRecipe(name="x", tarball=str(tmp_path / "none.tar")), heard)
    assert caught.value.code is Code.NOT_FOUND


async def test_too_little_space_is_said_with_numbers_before_the_build(images, builder, heard, monkeypatch):
    monkeypatch.setattr("banger.images.shelf.free_bytes", lambda _: 1024**2)
    with pytest.raises(Problem, match=r"needs 1\.5 GiB, .* has 1 MiB free") as caught:
        await images.ensure(heard)
    assert caught.value.code is Code.NO_SPACE
    assert builder.builds == 0


def test_a_manifest_of_a_later_banger_may_know_more_fields():
    import msgspec

    text = b'{"name":"x","id":"1","source":"s","recipe_digest":"d","created_at":"t","virtual_size_bytes":1,'
    text += b'"size_bytes":1,"invented_later":true}'
    assert msgspec.json.decode(text, type=ImageManifest).name == "x"
