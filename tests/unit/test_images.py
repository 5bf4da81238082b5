"""Decoding, and the one grid that the images of a sample share."""
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def images(plain):
    return plain("images")


def test_transparency_is_put_over_white(images, tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "x.png")
    assert images.load(tmp_path / "x.png").getpixel((0, 0)) == (255, 255, 255)


def test_exif_orientation_is_applied(images, tmp_path):
    image = Image.new("RGB", (6, 3))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned
    image.save(tmp_path / "x.jpg", exif=exif)
    assert images.load(tmp_path / "x.jpg").size == (3, 6)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1000, 1000), (3000, 500)])
def test_buckets_keep_area_and_ratio_on_the_grid(images, size):
    width, height = images.bucket(size, 512)
    assert width % 16 == height % 16 == 0
    assert width * height == pytest.approx(512**2, rel=0.08)
    assert width / height == pytest.approx(size[0] / size[1], rel=0.12)


def test_reference_and_target_share_one_transform(images):
    """A marked pixel is at the same place in both, though one is twice as large; so no shift or zoom is learned."""
    target = Image.new("RGB", (400, 300))
    target.paste((255, 255, 255), (200, 100, 220, 120))
    start = target.resize((800, 600), Image.Resampling.NEAREST)
    a, b = images.on_one_grid([start, target], 256)
    assert a.shape == b.shape and a.dtype == np.float32 and 0 <= a.min() and a.max() <= 1
    centres = [np.argwhere(x[..., 0] > 0.5).mean(0) for x in (a, b)]
    assert np.abs(centres[0] - centres[1]).max() < 0.3


def test_another_ratio_is_kept(images):
    a, b = images.on_one_grid([Image.new("RGB", (300, 900)), Image.new("RGB", (500, 500))], 256)
    assert b.shape == (256, 256, 3) and a.shape[0] > 2 * a.shape[1]
