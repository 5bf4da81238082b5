"""The dataset rule: which files make which sample, and that every other file is named."""
import os
import random
import re
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="session")
def pairs(plain):
    return plain("pairs")


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def names(found):
    return {sample.name: [found.relative(path) for path in sample.images] for sample in found.samples}


def codes(found):
    return [(finding.code, finding.sample) for finding in found.findings]


def test_a_sample_is_what_shares_a_base_name(pairs, tmp_path):
    touch(tmp_path, "a_start.jpg", "a_start1.png", "a_start2.webp", "a_end.jpg", "a.txt", "b_start.jpg", "b_end.PNG")
    found = pairs.match(tmp_path)
    assert names(found) == {
        "a": ["a_start.jpg", "a_start1.png", "a_start2.webp", "a_end.jpg"],
        "b": ["b_start.jpg", "b_end.PNG"],
    }
    assert [sample.caption_file and sample.caption_file.name for sample in found.samples] == ["a.txt", None]
    assert not found.unused and not found.findings


def test_numbers_are_sorted_as_numbers(pairs, tmp_path):
    touch(tmp_path, *[f"p{i}_{role}.png" for i in (1, 2, 10) for role in ("start", "start1", "start2", "end")])
    touch(tmp_path, *[f"p1_start{i}.png" for i in range(3, 11)])
    found = pairs.match(tmp_path)
    assert list(names(found)) == ["p1", "p2", "p10"]
    assert names(found)["p1"] == ["p1_start.png", *[f"p1_start{i}.png" for i in range(1, 11)], "p1_end.png"]
    assert [len(sample.starts) for sample in found.samples] == [11, 3, 3]  # they may differ


def test_fals_numbering_is_accepted_and_the_gap_noted(pairs, tmp_path):
    touch(tmp_path, "a_start.png", "a_start2.png", "a_end.png")
    found = pairs.match(tmp_path)
    assert names(found) == {"a": ["a_start.png", "a_start2.png", "a_end.png"]}
    assert [(f.level, f.code, f.sample) for f in found.findings] == [("note", "gap", "a")]
    assert "no _start1" in found.findings[0].message


@pytest.mark.parametrize("name", [
    "my_start_photo", "the_end", "a_start", "v1.2.final", "two words ", "größe", "写真", "🙂", "-x", "a_start1", "%d", "[x]",
])  # fmt: skip
def test_any_base_name(pairs, tmp_path, name):
    touch(tmp_path, f"{name}_start.jpg", f"{name}_START1.jpeg", f"{name}_End.JPG", f"{name}.txt")
    found = pairs.match(tmp_path)
    assert names(found) == {name: [f"{name}_start.jpg", f"{name}_START1.jpeg", f"{name}_End.JPG"]}
    assert found.samples[0].caption_file.name == f"{name}.txt" and not found.unused


def test_both_ways_of_writing_an_accent_are_one_name(pairs, tmp_path):
    one, other = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    touch(tmp_path, f"{one}_start.jpg", f"{other}_end.jpg")
    assert list(names(pairs.match(tmp_path))) == [one]


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "avif", "JPG", "Png"])
def test_the_image_formats(pairs, tmp_path, suffix):
    touch(tmp_path, f"a_start.{suffix}", f"a_end.{suffix}")
    assert len(pairs.match(tmp_path).samples) == 1


def test_every_unused_file_is_named_with_its_reason(pairs, tmp_path):
    touch(tmp_path, "a_start.jpg", "a_end.jpg", "b_start.jpg", "c_end.jpg", "d.txt", "e.psd", "f.jpg", "a.jpg")
    touch(tmp_path, ".DS_Store", "g.zip", "more/x_start.jpg", "_end.png", "C_start.jpg", "h_start1.png", "h_end.png")
    found = pairs.match(tmp_path)
    assert list(names(found)) == ["a"]
    reasons = dict(found.unused)
    assert reasons == {
        "b_start.jpg": "no b_end image",
        "c_end.jpg": "no c_start image (C differs in upper and lower case)",
        "C_start.jpg": "no C_end image (c differs in upper and lower case)",
        "d.txt": "a caption without images",
        "e.psd": "neither an image nor a .txt caption",
        "f.jpg": "the name ends neither in _start nor in _end; a f.txt would make it a sample without inputs",
        "a.jpg": "the name ends neither in _start nor in _end",
        ".DS_Store": "hidden, or a file of the operating system",
        "g.zip": "an archive; choose it itself, or unpack it",
        "more": "a folder; only the files of one folder make a dataset",
        "_end.png": "there is no name in front of _end; call it photo001_end.png",
        "h_start1.png": "no h_start image",
        "h_end.png": "no h_start image",
    }
    assert sorted(codes(found), key=str) == sorted([
        ("missing-target", "b"), ("missing-start", "c"), ("missing-target", "C"), ("caption-without-images", "d"),
        ("no-name", None), ("missing-start", "h"),
    ], key=str)  # fmt: skip
    assert all(finding.level == "error" for finding in found.findings)


def test_two_files_for_one_place_leave_the_sample_out(pairs, tmp_path):
    touch(tmp_path, "a_start.jpg", "a_start.png", "a_end.jpg", "a.txt", "b_start.jpg", "b_end.jpg")
    found = pairs.match(tmp_path)
    assert list(names(found)) == ["b"] and codes(found) == [("duplicate", "a")]
    assert {file for file, _ in found.unused} == {"a_start.jpg", "a_start.png", "a_end.jpg", "a.txt"}
    assert "a_start.jpg and a_start.png" in found.findings[0].message


def test_captions_may_stand_beside_either_image(pairs, tmp_path):
    for name, caption in {"a": "a", "b": "b_end", "c": "c_START", "d": "d"}.items():
        touch(tmp_path, f"{name}_start.jpg", f"{name}_end.jpg", f"{caption}.txt")
    touch(tmp_path, "d_end.txt", "the_end_start.jpg", "the_end_end.jpg", "the_end.txt")
    found = pairs.match(tmp_path)
    assert [sample.caption_file.name for sample in found.samples] == ["a.txt", "b_end.txt", "c_START.txt", "d.txt", "the_end.txt"]
    assert dict(found.unused) == {"d_end.txt": "d.txt is the caption"} and codes(found) == [("several-captions", "d")]


def test_plain_images_with_captions_are_samples_without_inputs(pairs, tmp_path):
    touch(tmp_path, "style01.png", "style01.txt", "style2.png", "style2.txt", "a_start.jpg", "a_end.jpg", "x.png")
    found = pairs.match(tmp_path)
    assert names(found) == {"a": ["a_start.jpg", "a_end.jpg"], "style01": ["style01.png"], "style2": ["style2.png"]}
    assert [sample.starts == () for sample in found.samples] == [False, True, True]
    assert [file for file, _ in found.unused] == ["x.png"]


@pytest.mark.parametrize("before, after", [
    ("before", "after"), ("input", "output"), ("control", "target"), ("source", "target"), ("Before", "AFTER"),
])  # fmt: skip
def test_two_folders_of_equal_names(pairs, tmp_path, before, after):
    touch(tmp_path, f"{before}/1.png", f"{after}/1.jpg", f"{after}/1.txt", f"{before}/2.png", f"{after}/2.png", "2.txt")
    touch(tmp_path, f"{before}/3.png", f"{after}/4.png", f"{before}/x.psd", f"{after}/more/y.png", "readme.md", "other/z.png")
    found = pairs.match(tmp_path)
    assert names(found) == {"1": [f"{before}/1.png", f"{after}/1.jpg"], "2": [f"{before}/2.png", f"{after}/2.png"]}
    assert [found.relative(sample.caption_file) for sample in found.samples] == [f"{after}/1.txt", "2.txt"]
    assert found.layout == f"equal names in {before} and {after}"
    reasons = dict(found.unused)
    assert reasons.keys() == {f"{before}/3.png", f"{after}/4.png", f"{before}/x.psd", f"{after}/more", "readme.md", "other"}
    assert reasons[f"{before}/3.png"] == f"no 3 image in {after}"
    assert codes(found) == [("missing-target", "3"), ("missing-start", "4")]


def test_the_rule_comes_before_folders_inside(pairs, tmp_path):
    touch(tmp_path, "a_start.png", "a_end.png", "before/1.png", "after/1.png")
    found = pairs.match(tmp_path)
    assert list(names(found)) == ["a"] and [file for file, _ in found.unused] == ["after", "before"]


@pytest.mark.parametrize("inner", ["pairs", "a/b/c"])
def test_a_folder_in_a_folder_as_archives_have_it(pairs, tmp_path, inner):
    touch(tmp_path, f"{inner}/a_start.png", f"{inner}/a_end.png", "readme.txt", "__MACOSX/._a_start.png")
    found = pairs.match(tmp_path)
    assert names(found) == {"a": [f"{inner}/a_start.png", f"{inner}/a_end.png"]}
    assert inner in found.layout and [file for file, _ in found.unused] == ["__MACOSX", "readme.txt"]
    touch(tmp_path, "second/b_start.png", "second/b_end.png")  # now it cannot be told which is meant
    assert not pairs.match(tmp_path).samples


def test_links_that_lead_nowhere_are_named(pairs, tmp_path):
    touch(tmp_path, "a_start.png", "a_end.png")
    (tmp_path / "b_start.png").symlink_to(tmp_path / "gone.png")
    assert dict(pairs.match(tmp_path).unused) == {"b_start.png": "not an ordinary file"}


def test_a_name_that_is_no_text(pairs, tmp_path):
    folder = os.fsencode(tmp_path)
    for name in (b"\xff_start.png", b"\xff_end.png"):
        with open(os.path.join(folder, name), "wb"):
            pass
    assert len(pairs.match(tmp_path).samples) == 1


@pytest.mark.parametrize(
    "files, message",
    [([], "is empty"), (["a_start.jpg", "b_end.jpg"], "no complete pair.*a_start.jpg: no a_end image")],
)
def test_a_useless_folder_says_what_to_do(pairs, tmp_path, files, message):
    touch(tmp_path, *files)
    found = pairs.match(tmp_path)
    assert found.findings[-1].code == "no-samples"
    assert re.search(message, found.findings[-1].message)


def test_no_folder(pairs, tmp_path):
    with pytest.raises(pairs.DatasetError, match="There is no folder .*gone"):
        pairs.match(tmp_path / "gone")


STEMS = st.sampled_from(["a", "A", "b", "a_start", "b_end", "photo1", "photo10", "photo2", "é", "é", "x.y", "a b"])
ROLES = st.sampled_from(["", "_start", "_START", "_start0", "_start1", "_start2", "_start01", "_start10", "_end", "_End"])
SUFFIXES = st.sampled_from([".png", ".PNG", ".jpg", ".txt", ".TXT", ".psd", "", ".zip"])
FOLDERS = st.sampled_from(["", "", "", "before/", "after/", "input/", "output/", "deep/er/", "After/"])
TREES = st.sets(st.builds("{}{}{}{}".format, FOLDERS, STEMS, ROLES, SUFFIXES), max_size=25)


@settings(max_examples=300, deadline=None)
@given(tree=TREES, seed=st.integers(0, 2**16))
def test_every_file_is_used_once_or_named_and_order_does_not_matter(pairs, tree, seed):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in tree:
            if not (folder / name).is_dir():  # "input/a" may be wanted as a file and as a folder
                touch(folder, name)
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        found = pairs.match(folder)
        used = [found.relative(path) for sample in found.samples for path in sample.images]
        used += [found.relative(sample.caption_file) for sample in found.samples if sample.caption_file]
        named = [file for file, _ in found.unused]
        assert len(used) == len(set(used)) and len(named) == len(set(named)) and not set(used) & set(named)
        for file in files:
            within = {file, *(parent.as_posix() for parent in Path(file).parents)}
            assert (file in used) + len(within & set(named)) == 1, (file, used, named)
        assert set(used) <= files

        scandir, shuffle = os.scandir, random.Random(seed).shuffle

        class Shuffled(list):
            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

        def shuffled(path):
            entries = Shuffled(scandir(path))
            shuffle(entries)
            return entries

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pairs.os, "scandir", shuffled)
            assert pairs.match(folder) == found
