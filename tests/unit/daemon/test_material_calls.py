"""What `image build` asks for, before anything is built."""

import pytest

from banger.api.images import ImageBuild
from banger.base.problem import Code, Problem
from banger.base.progress import Silent
from banger.daemon.material_calls import MaterialCalls, compose_recipe
from banger.services.images.service import ImageService
from banger.services.kernels.service import KernelService


@pytest.fixture
def calls(tmp_path):
    images = ImageService(tmp_path / "images", builders={})
    kernels = KernelService(tmp_path / "kernels", tmp_path / "init", builders={})
    return MaterialCalls(images, kernels, default_image="house-image")


def test_without_a_name_the_configured_default_is_built(calls):
    assert calls.subject_of_build(ImageBuild()) == "house-image"
    assert calls.subject_of_build(ImageBuild(image="dev")) == "dev"


def test_an_empty_name_is_not_the_default(calls):
    assert calls.subject_of_build(ImageBuild(image="")) == ""


@pytest.mark.parametrize(
    ("request_", "hint"),
    [
        (ImageBuild(image="alpine", from_tar="/a.tar", packages=["git"]), "leave out --package"),
        (ImageBuild(from_tar="/a.tar"), "banger image build NAME --from-tar /a.tar"),
    ],
)
def test_what_would_be_ignored_or_replace_the_default_is_refused_before_it_starts(calls, request_, hint):
    with pytest.raises(Problem) as caught:
        calls.subject_of_build(request_)
    assert caught.value.code is Code.BAD_REQUEST
    assert hint in caught.value.hint


def test_every_parameter_arrives_in_the_recipe():
    recipe = compose_recipe(
        ImageBuild(image="dev", packages=["git"], size_bytes=2**30, kernel="small"), "house-image"
    )
    assert (recipe.name, recipe.packages, recipe.size_bytes, recipe.kernel) == (
        "dev",
        ("git",),
        2**30,
        "small",
    )
    recipe = compose_recipe(ImageBuild(image="alpine", from_tar="/a.tar"), "house-image")
    assert (recipe.tarball, recipe.kernel) == ("/a.tar", None)


async def test_a_kernel_that_nobody_knows_is_refused(calls, tmp_path):
    with pytest.raises(Problem) as caught:
        await calls.build_image(ImageBuild(image="dev", kernel="nothing"), Silent())
    assert caught.value.code is Code.NOT_FOUND
    assert not (tmp_path / "images").exists()
