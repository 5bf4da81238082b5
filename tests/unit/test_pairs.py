"""The dataset rule: which files make which sample, and that every other file is named."""
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pairs(plain):
    return plain("pairs")


def touch(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"")


def test_a_sample_is_what_shares_a_base_name(pairs, tmp_path):
    touch(tmp_path, "a_start.jpg", "a_start1.png", "a_start2.webp", "a_end.jpg", "a.txt", "b_start.jpg", "b_end.PNG")
    found = pairs.match(tmp_path)
    assert [sample.name for sample in found.samples] == ["a", "b"]
    a, b = found.samples
    assert [path.name for path in a.starts] == ["a_start.jpg", "a_start1.png", "a_start2.webp"]
    assert (a.end.name, a.caption_file.name, b.caption_file) == ("a_end.jpg", "a.txt", None)
    assert not found.unused


def test_numbers_are_sorted_as_numbers(pairs, tmp_path):
    touch(tmp_path, *[f"p{i}_{role}.png" for i in (1, 2, 10) for role in ("start", "start2", "start10", "end")])
    found = pairs.match(tmp_path)
    assert [sample.name for sample in found.samples] == ["p1", "p2", "p10"]
    assert [path.name for path in found.samples[0].starts] == ["p1_start.png", "p1_start2.png", "p1_start10.png"]


def test_base_names_may_contain_the_suffixes(pairs, tmp_path):
    touch(tmp_path, "my_start_photo_start.jpg", "my_start_photo_end.jpg", "the_end_start.jpg", "the_end_end.jpg")
    assert [sample.name for sample in pairs.match(tmp_path).samples] == ["my_start_photo", "the_end"]


def test_every_unused_file_is_named_with_its_reason(pairs, tmp_path):
    touch(tmp_path, "a_start.jpg", "a_end.jpg", "a_start.png", "b_start.jpg", "c_end.jpg", "d.txt", "e.psd", "f.jpg")
    (tmp_path / "more").mkdir()
    found = pairs.match(tmp_path)
    reasons = dict(found.unused)
    assert set(reasons) == {"a_start.png", "b_start.jpg", "c_end.jpg", "d.txt", "e.psd", "f.jpg", "more"}
    assert "a_start.jpg already takes this place" in reasons["a_start.png"]
    assert reasons["b_start.jpg"] == "no b_end image" and reasons["c_end.jpg"] == "no c_start image"
    for name in reasons:
        assert f"not used: {name} (" in found.report()


@pytest.mark.parametrize(
    "files, message",
    [
        (None, "There is no folder"),
        ([], "is empty"),
        (["a_start.jpg", "b_end.jpg"], "no complete pair.*a_start.jpg: no a_end image"),
    ],
)
def test_a_useless_folder_is_an_error_that_says_what_to_do(pairs, tmp_path, files, message):
    folder = tmp_path / "set"
    if files is not None:
        folder.mkdir()
        touch(folder, *files)
    with pytest.raises(pairs.DatasetError, match=message):
        pairs.match(folder)


def save(path, size=(40, 30), mode="RGB"):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode).save(path)


def test_captions_and_the_trigger_word(plain, tmp_path):
    for name in "ab":
        save(tmp_path / f"{name}_start.png")
        save(tmp_path / f"{name}_end.png")
    (tmp_path / "a.txt").write_bytes("\ufeffmake it räd\r\n".encode())
    dataset, report = plain("dataset").open_dataset(tmp_path, "the default", "trg")
    assert [dataset.caption(sample) for sample in dataset.samples] == ["trg, make it räd", "trg, the default"]
    assert "2 pairs" in report and "1 with a caption file" in report


def test_the_fingerprint_follows_content_not_time(plain, tmp_path):
    save(tmp_path / "a_start.png")
    save(tmp_path / "a_end.png")

    def fingerprint(**options):
        return plain("dataset").open_dataset(tmp_path, **options)[0].fingerprint()

    first = fingerprint()
    (tmp_path / "a_end.png").touch()
    assert fingerprint() == first
    assert fingerprint(resolution=512) != first != fingerprint(default_caption="x")
    (tmp_path / "a.txt").write_text("new")
    assert fingerprint() != first


def test_an_unreadable_image_is_named_before_training(plain, tmp_path):
    save(tmp_path / "a_start.png")
    save(tmp_path / "a_end.png")
    data = (tmp_path / "a_end.png").read_bytes()
    (tmp_path / "a_end.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(plain("pairs").DatasetError, match=r"a_end\.png cannot be read as an image"):
        plain("dataset").open_dataset(tmp_path)
