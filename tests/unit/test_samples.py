"""What ships with the pack: the two sample datasets and their held-out parts."""
import numpy as np
import pytest
from PIL import Image

from figures import psnr
from host import ROOT


def load(path):
    return np.asarray(Image.open(path).convert("RGB"), dtype=np.float64) / 255


@pytest.mark.parametrize("name, references, count", [
    ("background-removal", 1, 24), ("background-removal-held-out", 1, 6), ("try-on", 3, 24), ("try-on-held-out", 3, 6),
])  # fmt: skip
def test_sample_datasets_are_complete(plain, name, references, count):
    found = plain("pairs").match(ROOT / "samples" / name)
    assert len(found.samples) == count and not found.unused
    for sample in found.samples:
        assert len(sample.starts) == references and sample.caption_file.read_text().strip()
        assert all(min(Image.open(path).size) >= 128 for path in sample.images)
        start, end = load(sample.starts[0]), load(sample.end)
        if references == 3:  # glasses and hat are large enough to count
            assert psnr([start], [end]) <= 15
        else:  # on white
            assert (end.min(-1) > 0.98).mean() > 0.3


def test_the_base_is_small_enough_to_ship():
    assert (ROOT / "samples/base/tiny-reference-flow.safetensors").stat().st_size < 20e6
