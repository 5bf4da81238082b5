"""The pixels that are trained on are those that ComfyUI's LoadImage gives the graph, in one process with ComfyUI."""
import inspect
import struct
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image, ImageCms

SIZE = WIDTH, HEIGHT = 48, 32
YS, XS = np.mgrid[:HEIGHT, :WIDTH]
RGB = Image.fromarray(np.stack([XS * 5, YS * 8, (XS + YS) * 3], -1).astype(np.uint8))
ALPHA = Image.fromarray(((XS * 7 + YS * 3) % 256).astype(np.uint8))
DEEP = np.linspace(0, 65535, WIDTH * HEIGHT).astype(np.uint16).reshape(HEIGHT, WIDTH)
PALETTE = RGB.quantize(200)
FRAMES = {"save_all": True, "append_images": [RGB.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]}
LOSSY = {"quality": 95}
LOSSLESS = {"lossless": True}


def with_alpha(image):
    image = image.copy()
    image.putalpha(ALPHA)
    return image


def lab():
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(RGB, srgb, lab, outputMode="LAB")


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


PROFILE = {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()}
PICTURES = {
    **{f"rgb.{suffix}": (RGB, {}) for suffix in ("png", "tiff", "bmp", "gif")},
    **{f"grey.{suffix}": (RGB.convert("L"), {}) for suffix in ("png", "tiff", "bmp", "gif")},
    **{f"bits.{suffix}": (RGB.convert("1"), {}) for suffix in ("png", "tiff", "bmp")},
    **{f"palette.{suffix}": (PALETTE, {}) for suffix in ("png", "tiff", "bmp", "gif")},
    **{f"{mode}.{suffix}": (RGB.convert(mode), LOSSY if suffix == "jpg" else {})
       for mode in ("RGB", "L", "CMYK", "YCbCr") for suffix in ("jpg", "tiff")},
    "RGB.webp": (RGB, LOSSLESS), "RGBA.webp": (with_alpha(RGB), LOSSLESS), "lossy.webp": (with_alpha(RGB), LOSSY),
    "RGBA.png": (with_alpha(RGB), {}), "RGBA.tiff": (with_alpha(RGB), {}), "RGBA.bmp": (with_alpha(RGB), {}),
    "LA.png": (with_alpha(RGB.convert("L")), {}), "LA.tiff": (with_alpha(RGB.convert("L")), {}),
    "keyed RGB.png": (RGB, {"transparency": (0, 0, 0)}), "keyed L.png": (RGB.convert("L"), {"transparency": 100}),
    "keyed palette.png": (PALETTE, {"transparency": 3}), "alpha palette.png": (PALETTE, {"transparency": bytes(range(200))}),
    "keyed palette.gif": (PALETTE, {"transparency": 3}),
    "frames.gif": (RGB, FRAMES), "frames.png": (RGB, FRAMES), "frames.tiff": (RGB, FRAMES),
    "LAB.tiff": (lab(), {}), "progressive.jpg": (RGB, {"progressive": True, **LOSSY}),
    "profile.png": (RGB, PROFILE), "profile.jpg": (RGB, {**PROFILE, **LOSSY}), "CMYK with profile.tiff": (RGB.convert("CMYK"), PROFILE),
    **{f"turned {i}.{suffix}": (RGB, {**oriented(i), **(LOSSY if suffix == "jpg" else {})})
       for i in range(1, 9) for suffix in ("jpg", "png", "tiff")},
    "I;16.png": (Image.fromarray(DEEP), {}), "I;16.tiff": (Image.fromarray(DEEP), {}),
    "I.tiff": (Image.fromarray(DEEP.astype(np.int32)), {}), "F.tiff": (Image.fromarray((DEEP / 65535).astype(np.float32)), {}),
}  # fmt: skip
DEEP_RGB = {"RGB of 16 bits.png": 2, "RGBA of 16 bits.png": 6}  # PNG's types; Pillow writes neither

# Newer versions of LoadImage decode with FFmpeg; what it does otherwise than every viewer is not imitated.
FFMPEG = {
    "LAB.tiff": "it has no LAB", "YCbCr.tiff": "its YCbCr of TIFF is another", "keyed palette.gif": "it puts GIFs over white",
    **{f"turned {i}.{suffix}": "it turns but does not mirror" for i in (2, 4, 5, 7) for suffix in ("jpg", "png", "tiff")},
}  # fmt: skip
ROUNDING = 1.1  # of 255
CHROMA = 9  # of 255; decoders of JPEG and WebP differ in how they enlarge the colour


def write_16_bits(path, kind):
    pixels = np.dstack([np.asarray(RGB), np.asarray(ALPHA)])[..., : 4 if kind == 6 else 3].astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", *SIZE, 16, kind, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))


@pytest.fixture
def load_image(comfy, monkeypatch, tmp_path):
    """ComfyUI's LoadImage of a file in the test's folder, (height, width, 3) in 0..1, and whether FFmpeg decodes there."""
    import folder_paths

    import nodes

    monkeypatch.setattr(folder_paths, "get_input_directory", lambda *_: str(tmp_path))
    monkeypatch.setattr(folder_paths, "get_annotated_filepath", lambda name, *_: str(tmp_path / name))
    ffmpeg = "VideoFromFile" in inspect.getsource(nodes.LoadImage.load_image)
    return lambda name: nodes.LoadImage().load_image(name)[0][0].float().cpu().numpy(), ffmpeg


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("name", [*PICTURES, *DEEP_RGB])
def test_the_pixels_are_those_of_load_image(plain, load_image, tmp_path, name):
    images, (load, ffmpeg) = plain("images"), load_image
    if name == "YCbCr.tiff" and int(PIL.__version__.split(".")[0]) < 13:
        pytest.skip("this Pillow does not read the YCbCr TIFF that it writes")
    if name in DEEP_RGB:
        write_16_bits(tmp_path / name, DEEP_RGB[name])
    else:
        picture, options = PICTURES[name]
        picture.save(tmp_path / name, **options)
    ours = np.asarray(images.load(tmp_path / name))
    header = images.header(tmp_path / name)
    assert (header.height, header.width) == ours.shape[:2]
    if header.deep:  # which is a warning of the report
        assert np.abs(ours[..., 0] - DEEP / 257).max() <= ROUNDING, "the tones are kept"
        return
    assert name.split(".")[0] not in ("I;16", "I", "F")
    if ffmpeg and name in FFMPEG:
        pytest.skip(f"FFmpeg: {FFMPEG[name]}")
    theirs = load(name) * 255
    allowed = 0 if not ffmpeg else CHROMA if name.endswith(("jpg", "lossy.webp")) or "CMYK" in name else ROUNDING
    assert theirs.shape == ours.shape and np.abs(theirs - ours).max() <= allowed + 1e-3


def test_a_dataset_gives_the_pixels_of_load_image(dataset_in, load_image, tmp_path):
    """Through everything that lies between a folder and training; 64 pixels need no scaling."""
    pictures = [with_alpha(RGB).resize((64, 64)), RGB.resize((64, 64)).convert("CMYK")]
    for role, picture, suffix in zip(("start", "end"), pictures, ("png", "tiff")):
        picture.save(tmp_path / f"a_{role}.{suffix}")
    found = dataset_in(tmp_path)
    load, ffmpeg = load_image
    for name, ours in zip(("a_start.png", "a_end.tiff"), found.images(found.samples[0])):
        assert np.abs(load(name) - ours).max() <= (CHROMA / 255 if ffmpeg else 1e-6)
