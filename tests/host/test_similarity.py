"""PSNR, SSIM and the region that an edit should change, against values that are known."""
import io
import math

import numpy as np
import pytest
from PIL import Image

from host import ROOT

SAMPLES = sorted((ROOT / "samples").glob("*/*_start.png"))


@pytest.fixture(scope="module")
def similarity(trainer):
    return trainer("similarity")


def read(file):
    return np.asarray(Image.open(file).convert("RGB"), dtype=np.float32) / 255


def noise(seed, *shape):
    return np.random.default_rng(seed).random((*shape, 3), dtype=np.float32)


def jpeg(picture, quality):
    file = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(file, "JPEG", quality=quality)
    return read(file)


def wang(x, y):
    """The map of SSIM as in the paper: one 11 x 11 window after the other."""
    from scipy.signal import convolve2d

    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def mean(values):
        return convolve2d(values, window, mode="valid")

    maps = []
    for a, b in zip(np.moveaxis(x.astype(float), -1, 0), np.moveaxis(y.astype(float), -1, 0)):
        ma, mb = mean(a), mean(b)
        va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
        maps.append((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
    return np.mean(maps, axis=0)


def test_psnr_of_a_constant_shift(similarity):
    picture = noise(0, 24, 40) / 2
    for shift in (0.5, 0.1, 0.01):
        assert similarity.psnr(picture, picture + np.float32(shift)) == pytest.approx(-20 * math.log10(shift), abs=1e-4)
    assert similarity.psnr(picture, picture) == 100


def test_ssim_is_that_of_the_paper(similarity):
    pairs = [(read(file), read(str(file).replace("_start", "_end"))) for file in SAMPLES[:4]]
    pairs += [(noise(0, 24, 40), noise(1, 24, 40)), (noise(2, 11, 11), noise(2, 11, 11) ** 2)]
    for x, y in pairs:
        assert similarity.ssim(x, y) == pytest.approx(wang(x, y).mean(), abs=1e-9)
        assert similarity.ssim(x, x) == pytest.approx(1, abs=1e-12)
    black, grey = np.zeros((32, 32, 3), np.float32), np.full((32, 32, 3), 0.5, np.float32)
    assert similarity.ssim(black, grey) == pytest.approx(1e-4 / (0.25 + 1e-4))


def test_within_a_region(similarity):
    x, y = noise(0, 40, 30), noise(0, 40, 30)
    y[:20] += 0.1
    upper = np.zeros((40, 30), bool)
    upper[:20] = True
    assert similarity.psnr(x, y, upper) == pytest.approx(20, abs=1e-4) and similarity.psnr(x, y, ~upper) == 100
    assert similarity.psnr(x, y) == pytest.approx(20 + 10 * math.log10(2), abs=1e-4)
    assert 1 > similarity.ssim(x, y, upper) == pytest.approx(wang(x, y)[:15].mean())
    both = 15 * similarity.ssim(x, y, upper) + 15 * similarity.ssim(x, y, ~upper)
    assert both / 30 == pytest.approx(similarity.ssim(x, y))


def test_where_there_is_nothing_to_compare(similarity):
    x, y = noise(0, 40, 30), noise(1, 40, 30)
    rim = np.ones((40, 30), bool)
    rim[5:-5, 5:-5] = False
    assert similarity.ssim(x, y, rim) is None and similarity.psnr(x, y, rim) is not None
    assert similarity.psnr(x, y, rim & ~rim) is None and similarity.ssim(x, y, rim & ~rim) is None
    assert similarity.ssim(x[:10], y[:10]) is None
    with pytest.raises(ValueError, match=r"\(40, 30, 3\) cannot be compared with one of \(40, 20, 3\)"):
        similarity.psnr(x, y[:, :20])


def test_the_region_is_what_one_sees(similarity):
    """In the samples of the pack: all that differs by more than a trace, and little beyond."""
    from scipy.ndimage import binary_dilation

    missed, beyond = [], []
    for file in SAMPLES:
        start, end = read(file), read(str(file).replace("_start", "_end"))
        region, seen = similarity.changed(start, end), np.abs(start - end).max(-1) > 8 / 255
        missed.append((seen & ~region).sum() / seen.sum())
        beyond.append((region & ~binary_dilation(seen, iterations=6)).mean())
    print(f"{len(SAMPLES)} pairs: at most {max(missed):.2%} of what differs is missed, {max(beyond):.2%} is beyond it")
    assert max(missed) < 0.002 and max(beyond) < 0.02


def test_what_is_no_edit_is_no_region(similarity):
    shares = {"itself": [], "JPEG 90": [], "JPEG 75": [], "JPEG 50": [], "a shift by one pixel": []}
    for file in SAMPLES[::4]:
        start = read(file)
        others = start, jpeg(start, 90), jpeg(start, 75), jpeg(start, 50), np.roll(start, 1, 1)
        for name, other in zip(shares, others):
            shares[name].append(similarity.changed(start, other).mean())
    print({name: f"{max(values):.2%}" for name, values in shares.items()})
    assert not any(shares["itself"])
    assert max(shares["JPEG 90"] + shares["JPEG 75"]) < 0.005 and max(shares["JPEG 50"]) < 0.02
    assert max(shares["a shift by one pixel"]) < 0.05


def test_an_edit_of_a_small_part(similarity):
    """At its place in the target, also where the input is larger."""
    start, end = read(SAMPLES[0]), read(SAMPLES[0])
    end[40:60, 70:100] = 1 - end[40:60, 70:100]
    larger = np.asarray(Image.fromarray((start * 255).astype(np.uint8)).resize((256, 256), Image.BICUBIC), np.float32) / 255
    for of in (start, larger):
        region = similarity.changed(of, jpeg(end, 95))
        assert region.shape == (128, 128) and region[41:59, 71:99].mean() > 0.98
        region[32:68, 62:108] = False
        assert region.mean() < 0.005
