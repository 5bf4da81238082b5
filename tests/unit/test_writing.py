"""Pairs written under the dataset rule: counts, numbers, and never over another file."""
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write(plain):
    return plain("writing").write_pairs


def batch(*values, channels=3, size=(4, 6)):
    return np.stack([np.full((*size, channels), value, np.float32) for value in values])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_batch_becomes_pairs_that_match(write, plain, tmp_path):
    folder = tmp_path / "new" / "folder"
    assert write(folder, [batch(0.2, 0.4), batch(1)], batch(0, 2), "été\n") == ["pair0001", "pair0002"]
    found = plain("pairs").match(folder)
    assert [(s.name, len(s.starts)) for s in found.samples] == [("pair0001", 2), ("pair0002", 2)]
    values = {path.stem: Image.open(path).getpixel((5, 3)) for path in folder.glob("*.png")}
    assert values == {
        "pair0001_start": (51,) * 3, "pair0001_start1": (255,) * 3, "pair0001_end": (0,) * 3,
        "pair0002_start": (102,) * 3, "pair0002_start1": (255,) * 3, "pair0002_end": (255,) * 3,
    }  # fmt: skip
    assert (folder / "pair0002.txt").read_bytes() == "été\n".encode()


def test_numbers_go_on_from_the_highest(write, tmp_path):
    for name in ("pair0003_end.png", "PAIR0007.txt", "pair12_end.png", "photo0099_end.png"):
        (tmp_path / name).touch()
    assert write(tmp_path, [batch(0)], batch(0)) == ["pair0008"]
    assert write(tmp_path, [batch(0)], batch(0), "  ") == ["pair0009"] and not (tmp_path / "pair0009.txt").exists()
    (tmp_path / "pair9999_end.png").touch()
    assert [write(tmp_path, [batch(0)], batch(0)) for _ in range(2)] == [["pair10000"], ["pair10001"]]


@pytest.mark.parametrize("inputs, target, message", [
    ([(0, 1)], (0,), "Of targets there are 1, of inputs 2"),
    ([(0,), (0, 1)], (0, 1, 2), "Of targets there are 3, of inputs 1 and 2"),
    ([(float("nan"),)], (0,), "NaN.*--fp32-vae"),
])  # fmt: skip
def test_what_does_not_fit_writes_nothing(write, plain, tmp_path, inputs, target, message):
    with pytest.raises(plain("pairs").DatasetError, match=message):
        write(tmp_path / "new", [batch(*values) for values in inputs], batch(*target))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("channels, mode", [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_channels_are_kept(write, tmp_path, channels, mode):
    write(tmp_path, [batch(0.5, channels=channels, size=(1, 1))], batch(0, channels=channels))
    with Image.open(tmp_path / "pair0001_start.png") as image:
        assert (image.mode, image.size) == (mode, (1, 1))


def test_a_pair_is_written_whole_or_not_at_all(write, tmp_path, monkeypatch):
    save, calls = Image.Image.save, []

    def failing(self, *args):
        calls.append(1)
        if len(calls) == 4:  # the target of the second pair
            raise OSError("disk full")
        save(self, *args)

    monkeypatch.setattr(Image.Image, "save", failing)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, [batch(0, 1)], batch(0, 1), "caption")
    assert names(tmp_path) == ["pair0001.txt", "pair0001_end.png", "pair0001_start.png"]


def test_another_writer_is_not_overwritten(write, plain, tmp_path, monkeypatch):
    """A file that appears after the numbers were counted."""
    writing = plain("writing")
    to_image = writing.to_image

    def slow(picture):
        (tmp_path / "pair0001_end.png").write_bytes(b"theirs")
        return to_image(picture)

    monkeypatch.setattr(writing, "to_image", slow)
    with pytest.raises(FileExistsError):
        write(tmp_path, [batch(0)], batch(0))
    assert names(tmp_path) == ["pair0001_end.png"] and (tmp_path / "pair0001_end.png").read_bytes() == b"theirs"
