"""A dataset: what changes it, what is left out of it, what is decoded."""
import os

import pytest
from pictures import edited, textured

NO_PROGRESS = lambda done, total: None  # noqa: E731


@pytest.fixture(scope="session")
def dataset(plain):
    return plain("dataset")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    for i, name in enumerate("ab"):
        start = textured(i, (96, 64))
        start.save(folder / f"{name}_start.png")
        edited(start, i + 9).save(folder / f"{name}_end.png")
        (folder / f"{name}.txt").write_text("remove the hat")
    return folder


@pytest.fixture
def opened(plain, dataset, folder):
    """`opened(strict=True, resolution=64)`: the dataset and its report."""

    def run(strict=False, **reading):
        with plain("cache").Cache() as cache:
            asked = dataset.Reading(**{"resolution": 64, **reading})
            report = dataset.survey(folder, asked)
            return dataset.open_dataset(report, asked, cache, NO_PROGRESS, strict), report

    return run


@pytest.fixture
def state(plain, dataset, folder):
    def run(**reading):
        with plain("cache").Cache() as cache:
            return dataset.state(folder, dataset.Reading(**{"resolution": 64, **reading}), cache)

    return run


def touch(folder):
    os.utime(folder / "a_end.png")


def edit_caption(folder):
    (folder / "a.txt").write_text("remove the cap")


def add_sample(folder):
    for role in ("start", "end"):
        (folder / f"c_{role}.png").write_bytes((folder / f"a_{role}.png").read_bytes())


def change_image(folder):
    textured(5, (96, 64)).save(folder / "b_start.png")


def add_reference(folder):
    textured(6, (96, 64)).save(folder / "a_start1.png")


def rename(folder):
    for path in list(folder.glob("b*")):
        path.rename(path.with_name("0" + path.name))


def add_unused(folder):
    (folder / "notes.md").write_text("")


@pytest.mark.parametrize("change", [edit_caption, add_sample, change_image, add_reference, rename])
def test_what_is_trained_on_makes_another_fingerprint(opened, state, folder, change):
    before = opened()[0].fingerprint, state()
    change(folder)
    after = opened()[0].fingerprint, state()
    assert all(old != new for old, new in zip(before, after))


@pytest.mark.parametrize(
    "reading", [{"resolution": 80}, {"background": "black"}, {"trigger_word": "zz"}], ids=lambda reading: next(iter(reading))
)
def test_how_it_is_read_makes_another_fingerprint(opened, state, reading):
    assert opened(**reading)[0].fingerprint != opened()[0].fingerprint and state(**reading) != state()


def test_a_default_caption_counts_where_it_is_used(opened, folder):
    assert opened(default_caption="x")[0].fingerprint == opened()[0].fingerprint, "every sample has its own"
    (folder / "a.txt").unlink()
    assert opened(default_caption="x")[0].fingerprint != opened()[0].fingerprint


def test_a_touched_file_of_the_same_content_changes_nothing(opened, state, folder):
    before = opened()[0].fingerprint, state()
    touch(folder)
    assert (opened()[0].fingerprint, state()) == before


def test_a_file_that_is_not_used_changes_the_report_but_not_what_is_trained_on(opened, state, folder):
    before = opened()[0].fingerprint, state()
    add_unused(folder)
    assert opened()[0].fingerprint == before[0] and state() != before[1]


def test_samples_with_errors_are_left_out_unless_strict(plain, opened, folder):
    (folder / "a_end.png").write_bytes((folder / "a_end.png").read_bytes()[:-2000])
    found, report = opened()
    assert [sample.name for sample in found.samples] == ["b"] and report.counts()["errors"] == 1
    with pytest.raises(plain("pairs").DatasetError, match=r"has 1 error, and strict is on: a: a_end.png cannot be read"):
        opened(strict=True)


def test_strict_takes_a_folder_without_errors_though_it_has_warnings(opened):
    found, report = opened(strict=True, resolution=128)
    assert len(found.samples) == 2 and report.counts()["warnings"] == 2


@pytest.mark.parametrize("remove, words", [("*", "is empty"), ("*_end.png", "no a_end image")])
def test_nothing_to_train_on_is_an_error_that_names_the_folder_and_why(plain, opened, folder, remove, words):
    for path in folder.glob(remove):
        path.unlink()
    with pytest.raises(plain("pairs").DatasetError, match=words) as error:
        opened()
    assert str(folder) in str(error.value)


def test_a_background_that_is_no_colour_is_named(plain, opened):
    with pytest.raises(plain("pairs").DatasetError, match="'witte' is no colour"):
        opened(background="witte")


def test_images_come_in_order_with_the_target_last_on_the_grid(opened, folder):
    add_reference(folder)
    found, _ = opened()
    first, second = found.samples
    images = found.images(first)
    assert [path.name for path in first.images] == ["a_start.png", "a_start1.png", "a_end.png"]
    assert [image.shape for image in images] == [(48, 80, 3)] * 3 and len(found.images(second)) == 2
    assert all(0 <= image.min() < 0.3 and 0.7 < image.max() <= 1 for image in images)
    assert found.caption(first) == "remove the hat"


def test_no_image_is_decoded_until_it_is_asked_for(plain, dataset, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(plain("cache"), "SETTLED", -60)
    reading = dataset.Reading(resolution=64)

    def open_it():
        with plain("cache").Cache(tmp_path / "cache.sqlite") as cache:
            return dataset.open_dataset(dataset.survey(folder, reading), reading, cache, NO_PROGRESS)

    open_it()
    load, decoded = plain("images").load, []
    monkeypatch.setattr(plain("images"), "load", lambda path, *args: (decoded.append(path.name), load(path, *args))[1])
    found = open_it()
    assert decoded == []
    found.images(found.samples[1])
    assert decoded == ["b_start.png", "b_end.png"]


def test_names_and_captions_are_read_once(plain, dataset, folder):
    """With ten thousand pairs a second time would take seconds."""
    reading = dataset.Reading(resolution=64)
    report = dataset.survey(folder, reading)
    edit_caption(folder)
    add_sample(folder)
    with plain("cache").Cache() as cache:
        found = dataset.open_dataset(report, reading, cache, NO_PROGRESS)
    assert found.captions == report.captions == {"a": "remove the hat", "b": "remove the hat"} and report.checked
