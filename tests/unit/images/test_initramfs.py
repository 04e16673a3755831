from banger.images.initramfs import render_init_archive, render_modules_archive


def test_modules_are_numbered_in_load_order():
    archive = render_modules_archive([("virtio", b"one"), ("virtio_blk", b"two")])
    assert archive.index(b"modules/000-virtio.ko\0") < archive.index(b"modules/001-virtio_blk.ko\0")


def test_what_can_wait_is_in_a_directory_of_its_own():
    archive = render_modules_archive([("virtio", b"one")], [("vsock", b"two")])
    assert archive.index(b"modules/000-virtio.ko\0") < archive.index(b"modules/late/000-vsock.ko\0")


def test_the_two_archives_follow_one_another():
    assert len(render_init_archive(b"program")) % 512 == 0
    assert b"init\0" in render_init_archive(b"program")
    assert b"dev/console\0" in render_init_archive(b"program")
