"""Decoding whatever people have, and the one grid that the images of a sample share."""
import struct
import subprocess
import sys

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms, ImageFile, PngImagePlugin, features

from host import ROOT

FORMATS = ["jpg", "png", "webp", "bmp", "tiff", "gif", *(["avif"] if features.check("avif") else [])]


@pytest.fixture
def images(plain):
    return plain("images")


PALETTE = Image.linear_gradient("L").quantize(64)


def noise(size=(48, 32), channels=3, top=256, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, top, (size[1], size[0], channels), dtype).squeeze()


def test_transparency_is_left_out_or_put_over_the_chosen_colour(images, tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "x.png")
    assert images.load(tmp_path / "x.png").getpixel((0, 0)) == (255, 0, 0)
    assert images.load(tmp_path / "x.png", images.colour("#102030")).getpixel((0, 0)) == (16, 32, 48)
    half = Image.new("LA", (4, 4), (0, 128))
    half.save(tmp_path / "half.png")
    assert images.load(tmp_path / "half.png", images.colour("white")).getpixel((0, 0)) == pytest.approx((127, 127, 127), abs=1)
    assert images.colour(" As loadimage ") is None


def test_a_transparent_palette_entry_is_put_over_the_background(images, tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 1), 1)
    image.save(tmp_path / "x.png", transparency=0)
    loaded = images.load(tmp_path / "x.png", (255, 255, 255))
    assert (loaded.getpixel((0, 0)), loaded.getpixel((1, 1))) == ((255, 255, 255), (0, 255, 0))


@pytest.mark.parametrize("make, options, transparent", [
    (lambda: Image.new("RGBA", (4, 4), (1, 2, 3, 254)), {}, True), (lambda: Image.new("RGBA", (4, 4), (1, 2, 3, 255)), {}, False),
    (lambda: Image.new("LA", (4, 4), (1, 0)), {}, True), (lambda: Image.new("RGB", (4, 4), "red"), {"transparency": (255, 0, 0)}, True),
    (lambda: Image.new("RGB", (4, 4), "red"), {"transparency": (0, 0, 0)}, False), (lambda: Image.new("RGB", (4, 4), "red"), {}, False),
    (lambda: Image.new("L", (4, 4), 7), {"transparency": 7}, True), (lambda: PALETTE.copy(), {"transparency": 3}, True),
    (lambda: PALETTE.copy(), {"transparency": 200}, False), (lambda: PALETTE.copy(), {"transparency": bytes(range(128, 256))}, True),
])  # fmt: skip
def test_whether_any_part_is_transparent_is_known(images, tmp_path, make, options, transparent):
    make().save(tmp_path / "x.png", **options)
    for background in (None, (255, 255, 255)):
        assert images.load_with_alpha(tmp_path / "x.png", background)[1] is transparent


@pytest.mark.parametrize("colour", ["whiteish", "#12", ""])
def test_no_colour_is_an_error_that_names_it(images, plain, colour):
    with pytest.raises(plain("pairs").DatasetError, match=f"'{colour}' is no colour"):
        images.colour(colour)


@pytest.mark.parametrize("format", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(images, tmp_path, format, orientation):
    """The same picture comes out as from Pillow's own transposition, and the header tells its size."""
    upright = Image.fromarray(noise((6, 4))).resize((48, 32), Image.Resampling.NEAREST)
    stored = {  # what a camera writes for each value
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    image = upright.transpose(stored) if stored is not None else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if format == "jpg" else {"lossless": True} if format == "webp" else {}
    image.save(tmp_path / f"x.{format}", exif=exif, **options)
    loaded, header = images.load(tmp_path / f"x.{format}"), images.header(tmp_path / f"x.{format}")
    assert loaded.size == (48, 32) == (header.width, header.height)
    assert np.abs(np.asarray(loaded, int) - np.asarray(upright, int)).max() <= (8 if format == "jpg" else 0)


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_16_bit_grey_keeps_its_tones(images, tmp_path, format):
    """Pillow's own conversion clips everything above 255 to white."""
    ramp = np.linspace(0, 65535, 64 * 8).astype(np.uint16).reshape(8, 64)
    Image.fromarray(ramp).save(tmp_path / f"x.{format}")
    loaded = np.asarray(images.load(tmp_path / f"x.{format}"))[..., 0]
    assert np.abs(loaded.astype(float) - ramp / 257).max() <= 0.51


def test_floating_point_grey(images, tmp_path):
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "x.tiff")
    assert np.abs(np.asarray(images.load(tmp_path / "x.tiff"))[..., 0] - ramp * 255).max() <= 0.51


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "YCbCr", "CMYK", "I", "F", "LAB"])
def test_every_mode_becomes_rgb(images, tmp_path, mode):
    if mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("this Pillow does not read the YCbCr TIFF that it writes")
    image = Image.fromarray(noise())
    image = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    ) if mode == "LAB" else image.convert(mode)  # fmt: skip
    image.save(tmp_path / "x.tiff")
    loaded = images.load(tmp_path / "x.tiff")
    assert (loaded.mode, loaded.size) == ("RGB", (48, 32))


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SRGB_PRIMARIES = [(0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)]  # as XYZ under D50
P3_PRIMARIES = [(0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)]


def rgb_profile(gamma, primaries):
    """An ICC.1 profile of an RGB display."""
    xyz = [struct.pack(">4s4x3i", b"XYZ ", *(round(v * 65536) for v in values)) for values in (*primaries, (0.9642, 1, 0.8249))]
    curve = struct.pack(">4s4xIHxx", b"curv", 1, round(gamma * 256))
    name = b"made for a test\0"
    described = struct.pack(">4s4xI", b"desc", len(name)) + name + bytes(78)
    tags = {b"rXYZ": xyz[0], b"gXYZ": xyz[1], b"bXYZ": xyz[2], b"wtpt": xyz[3],
            **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve), b"desc": described + bytes(-len(described) % 4)}  # fmt: skip
    table, data = struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        table += struct.pack(">4sII", tag, 128 + 4 + 12 * len(tags) + len(data), len(content))
        data += content
    header = bytearray(128)
    struct.pack_into(">I", header, 0, 128 + len(table) + len(data))
    header[8:12], header[12:24], header[36:40] = b"\x02\x10\x00\x00", b"mntrRGB XYZ ", b"acsp"
    struct.pack_into(">3i", header, 68, 63190, 65536, 54061)
    return bytes(header) + table + data


def cmyk_profile(lab):
    """A printer on whose white paper any ink gives the one colour ``lab``, and all of them black: an ICC.1 profile with
    an A2B0 table of 2 x 2 x 2 x 2."""
    ramp = bytes(range(256))
    encoded = bytes([round(lab[0] * 2.55), lab[1] + 128, lab[2] + 128])
    identity = b"".join(struct.pack(">i", 65536 if i % 4 == 0 else 0) for i in range(9))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + 4 * ramp + b"\xff\x80\x80" + 14 * encoded + b"\x00\x80\x80" + 3 * ramp
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    table += bytes(-len(table) % 4)
    tags = struct.pack(">I", 2) + struct.pack(">4sII", b"wtpt", 156, len(white))
    tags += struct.pack(">4sII", b"A2B0", 156 + len(white), len(table))
    header = bytearray(128)
    struct.pack_into(">I", header, 0, 156 + len(white) + len(table))
    header[8:12], header[12:24], header[36:40] = b"\x02\x10\x00\x00", b"prtrCMYKLab ", b"acsp"
    struct.pack_into(">3i", header, 68, 63190, 65536, 54061)
    return bytes(header) + tags + white + table


@pytest.mark.parametrize("format", ["jpg", "tiff"])
def test_no_profile_is_read_for_the_pixels_but_one_that_shows_other_colours_is_known(images, tmp_path, format):
    path = tmp_path / f"x.{format}"
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for profile in (None, b"no profile", cmyk_profile((50, -60, 50))):
        image.save(path, **({"icc_profile": profile} if profile else {}))
        assert images.load(path).getpixel((0, 0)) == pytest.approx((255, 0, 0), abs=3)
    headers = [images.header(path)]
    for profile in (None, b"no profile", SRGB, rgb_profile(2.2, SRGB_PRIMARIES), rgb_profile(2.2, P3_PRIMARIES)):
        Image.new("RGB", (8, 8)).save(path, **({"icc_profile": profile} if profile else {}))
        headers.append(images.header(path))
    printed, *plain, p3 = headers
    assert [header.profile for header in plain] == [""] * 4 and all(images.same_profile(header, plain[0]) for header in plain)
    assert not images.same_profile(p3, plain[0]) and images.same_profile(p3, p3) and p3.profile == "made for a test"
    assert not images.same_profile(printed, plain[0]) and not images.same_profile(printed, p3)
    Image.new("L", (8, 8)).save(path, icc_profile=SRGB)  # of another kind than the image, as some editors leave it
    assert images.same_profile(images.header(path), plain[0])


def test_a_png_may_hold_megabytes_of_text(images, tmp_path):
    """ComfyUI's LoadImage reads it, and other packs save their workflows so."""
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * 5_000_000, zip=True)
    info.add_itxt("prompt", "é" * 3_000_000, zip=True)
    info.add_text("plain", "y" * 70_000_000)
    Image.new("RGB", (8, 6), "red").save(tmp_path / "x.png", pnginfo=info)
    assert images.header(tmp_path / "x.png").width == 8
    assert images.load(tmp_path / "x.png").getpixel((0, 0)) == (255, 0, 0)
    assert PngImagePlugin.MAX_TEXT_CHUNK < 5_000_000, "Pillow's own limit again"


def test_a_mistake_of_the_program_is_no_damaged_image(images, tmp_path, monkeypatch):
    Image.new("RGBA", (8, 8)).save(tmp_path / "x.png")

    def mistaken(*_, **__):
        raise TypeError("unexpected keyword")

    for name in ("_rgb", "_upright", "_is_transparent"):
        with monkeypatch.context() as patch, pytest.raises(TypeError, match="unexpected keyword"):
            patch.setattr(images, name, mistaken)
            images.load(tmp_path / "x.png")


def test_too_little_memory_is_no_damaged_image(images, tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", full)
    with pytest.raises(MemoryError):
        images.load(tmp_path / "x.png")


@pytest.mark.parametrize("version, enough", [("9.5.0", False), ("10.0.1", False), ("10.1.0", True), ("12.1.0", True)])
def test_a_pillow_that_is_too_old_is_told_once_with_what_to_run(images, plain, tmp_path, monkeypatch, version, enough):
    monkeypatch.setattr(images.PIL, "__version__", version)
    for role in ("start", "end"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"a_{role}.png")
    if enough:
        assert plain("dataset").survey(tmp_path, plain("dataset").Reading()).found.samples
    else:
        with pytest.raises(plain("pairs").DatasetError, match=rf"Pillow 10\.1 or newer.*{version}.*pip install"):
            plain("dataset").survey(tmp_path, plain("dataset").Reading())


def test_of_an_animation_the_first_frame_is_used_and_that_is_known(images, tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "still.gif")
    assert images.load(tmp_path / "x.gif").getpixel((0, 0)) == (255, 0, 0)
    assert images.header(tmp_path / "x.gif").animated and not images.header(tmp_path / "still.gif").animated


@pytest.mark.parametrize("format", FORMATS)
def test_a_truncated_file_is_named_even_if_pillow_was_told_to_fill_it_up(images, plain, tmp_path, monkeypatch, format):
    path = tmp_path / f"x.{format}"
    Image.fromarray(noise((200, 200))).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as some node packs do
    with pytest.raises(plain("pairs").DatasetError, match=rf"x\.{format} cannot be read as an image"):
        images.load(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True  # theirs again


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_an_image_of_one_pixel_is_an_error(images, plain, tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "x.png")
    for read in (images.header, images.load):
        with pytest.raises(plain("pairs").DatasetError, match=rf"x\.png is {size[0]}x{size[1]} pixels"):
            read(tmp_path / "x.png")


MEASURE = """
import re, sys
sys.path.insert(0, {root!r})
from trainer.data import images
most = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = most()
image = images.load({path!r})
print((most() - before) * 1024, *image.size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("format, bound", [("jpg", 1.5), ("png", 5)])
def test_hundreds_of_megapixels_within_a_memory_bound(images, tmp_path, monkeypatch, format, bound):
    """Bytes a pixel: JPEG is decoded at a fraction of its size; others once as a whole, with no second copy."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path, pixels = tmp_path / f"x.{format}", 16000 * 13000
    Image.radial_gradient("L").resize((16000, 13000)).convert("RGB").save(path, compress_level=1)
    script = MEASURE.format(root=str(ROOT), path=str(path))
    grown, width, height = map(int, subprocess.check_output([sys.executable, "-c", script], text=True).split())
    print(f"{pixels / 1e6:.0f} megapixels as {format}: {grown / pixels:.2f} bytes a pixel, decoded to {width}x{height}")
    assert 1e6 < grown < bound * pixels and width * height >= images.ENOUGH and width / height == pytest.approx(16 / 13, rel=1e-3)


def test_an_image_beyond_the_bound_is_named_before_it_is_decoded(images, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "LARGEST", 1000)
    Image.new("RGB", (50, 50)).save(tmp_path / "x.png")
    with pytest.raises(plain("pairs").DatasetError, match=r"x\.png has 50x50 pixels.*Scale it down"):
        images.header(tmp_path / "x.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I;16", "L"])
def test_a_reduced_image_is_the_image(images, tmp_path, monkeypatch, mode):
    """Reduction does not move, mirror or tint it, whatever the mode."""
    gradient = Image.linear_gradient("L").resize((320, 240))
    image = Image.merge("RGB", [gradient, gradient.transpose(Image.Transpose.FLIP_TOP_BOTTOM), Image.new("L", (320, 240))])
    if mode == "I;16":
        image = Image.fromarray(np.asarray(gradient, np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert(mode)
    image.save(tmp_path / "x.png")
    whole = images.load(tmp_path / "x.png")
    monkeypatch.setattr(images, "LARGE", 1000)
    monkeypatch.setattr(images, "ENOUGH", 320 * 240 / 16)
    reduced = images.load(tmp_path / "x.png")
    assert reduced.size == (80, 60)
    assert np.abs(np.asarray(whole.reduce(4), int) - np.asarray(reduced, int)).max() <= 2


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


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # what Pillow says of broken tags
@pytest.mark.parametrize("format", FORMATS)
def test_500_damaged_files_give_an_image_or_a_named_error(images, plain, tmp_path, format):
    """No other exception, no hang, nothing written; 84 mutations of each format."""
    error = plain("pairs").DatasetError
    random = np.random.default_rng(sum(map(ord, format)))
    source = tmp_path / f"whole.{format}"
    Image.fromarray(noise((64, 48))).save(source)
    whole, path = source.read_bytes(), tmp_path / f"x.{format}"
    outcomes = {"read": 0, "refused": 0}
    for i in range(84):
        data = bytearray(whole)
        for _ in range(random.integers(1, 12)):
            at = random.integers(0, len(data) if i % 2 else min(len(data), 80))  # every other time the header
            data[at : at + random.integers(0, 3)] = random.bytes(random.integers(0, 5))
        path.write_bytes(bytes(data[: random.integers(1, len(data) + 1)] if i % 5 == 0 else data))
        try:
            images.header(path)
            loaded = images.load(path)
            assert loaded.mode == "RGB" and min(loaded.size) > 1
            outcomes["read"] += 1
        except error as refused:
            assert path.name in str(refused)
            outcomes["refused"] += 1
    print(format, outcomes)
    assert outcomes["refused"] > 5 and {p.name for p in tmp_path.iterdir()} == {source.name, path.name}
