"""The dataset rule: which files make which sample, and that every other file is named."""
import json
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


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "jfif", "jpe", "JFIF", "png", "webp", "bmp", "tif", "tiff", "gif", "avif", "Png"])
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
        "e.psd": "images of this kind are not read; convert it to PNG or JPEG",
        "f.jpg": "the name ends neither in _start nor in _end; call it f_start.jpg or f_end.jpg, or write a f.txt for a "
        "sample without inputs",
        "a.jpg": "the name ends neither in _start nor in _end; call it a_start.jpg or a_end.jpg",
        ".DS_Store": "hidden, or a file of the operating system",
        "g.zip": "an archive; choose it itself, or unpack it",
        "more": "a folder; only the files of one folder make a dataset; put its files beside the others, as NAME_start1 or "
        "the like, to use them",
        "_end.png": "there is no name in front of _end; call it photo001_end.png",
        "h_start1.png": "no h_start image",
        "h_end.png": "no h_start image",
    }
    assert sorted(codes(found), key=str) == sorted([
        ("missing-target", "b"), ("missing-start", "c"), ("missing-target", "C"), ("caption-without-images", "d"),
        ("no-name", None), ("missing-start", "h"), *[("not-used", None)] * 3,
    ], key=str)  # fmt: skip
    assert {finding.level for finding in found.findings if finding.code == "not-used"} == {"warning"}
    assert {finding.level for finding in found.findings if finding.code != "not-used"} == {"error"}


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
    assert [code for code in codes(found) if code[1]] == [("missing-target", "3"), ("missing-start", "4")]
    for file in (f"{before}/x.psd", f"{after}/more", "readme.md", "other"):
        assert any(file in finding.message and finding.level == "warning" for finding in found.findings), file


def test_the_rule_comes_before_folders_inside(pairs, tmp_path):
    touch(tmp_path, "a_start.png", "a_end.png", "before/1.png", "after/1.png")
    found = pairs.match(tmp_path)
    assert list(names(found)) == ["a"] and [file for file, _ in found.unused] == ["after", "before"]


def read(pairs, folder, *files, contents=None):
    """The samples of these files, as lists of names with the caption last, and the messages."""
    touch(folder, *files)
    for name, content in (contents or {}).items():
        (folder / name).write_text(content, encoding="utf-8")
    found = pairs.match(folder)
    samples = {
        sample.name: [*map(found.relative, sample.images),
                      found.relative(sample.caption_file) if sample.caption_file else sample.caption]
        for sample in found.samples
    }  # fmt: skip
    return samples, [f"{finding.level}: {finding.message}" for finding in found.findings]


@pytest.mark.parametrize("start, end", [
    ("before", "after"), ("input", "output"), ("source", "target"), ("control", "target"), ("Before", "AFTER"), ("start", "after"),
])  # fmt: skip
def test_the_words_of_folders_are_read_in_names_too(pairs, tmp_path, start, end):
    files = [f"a_{start}.jpg", f"a_{end}.jpg", "a.txt", f"b_{start}.jpg", f"b_{end}.jpg", f"b_{end}.txt"]
    samples, messages = read(pairs, tmp_path, *files)
    assert samples == {"a": files[:3], "b": files[3:]} and not messages


def test_in_words_other_than_start_the_inputs_may_count_from_1(pairs, tmp_path):
    samples, messages = read(pairs, tmp_path, "a_input1.png", "a_input2.png", "a_output.png", "b_control.png", "b_control2.png", "b_target.png")
    assert samples == {"a": ["a_input1.png", "a_input2.png", "a_output.png", None],
                       "b": ["b_control.png", "b_control2.png", "b_target.png", None]}  # fmt: skip
    assert not messages


def test_a_missing_side_is_named_in_the_words_of_the_other(pairs, tmp_path):
    samples, messages = read(pairs, tmp_path, "a_before.jpg", "b_target.png", "c_control.jpg", "c.jpg")
    assert not samples
    assert messages[:3] == [
        "error: no a_after image", "error: no b_control image", "error: no c_target image (c.jpg may be it; call it c_target.jpg)"]  # fmt: skip


def test_a_plain_image_may_be_called_like_a_side(pairs, tmp_path):
    samples, messages = read(pairs, tmp_path, "my_output.png", "my_output.txt")
    assert samples == {"my_output": ["my_output.png", "my_output.txt"]} and not messages


@pytest.mark.parametrize("file, advice", [
    ("b-start.png", "call it b_start.png"), ("b start1.png", "call it b_start1.png"), ("b.end.png", "call it b_end.png"),
    ("b_end (1).png", "if it is no copy, call it b (1)_end.png"), ("b_start - Copy.png", "if it is no copy, call it b - Copy_start.png"),
    ("b_start - Copy (2).png", "call it b - Copy (2)_start.png"), ("start_b.png", "call it b_start.png"),
    ("before-b.png", "call it b_start.png"), ("b_mask.png", "call it b_mask_start.png or b_mask_end.png"),
    ("b_start.heic", "convert it to PNG or JPEG"), ("b_end.dng", "convert it to PNG or JPEG"), ("a.md", "captions are called NAME.txt"),
    ("a.tags", "captions are called NAME.txt"), ("b.json", "no list of images that are in this folder"),
])  # fmt: skip
def test_an_image_or_text_that_is_not_read_is_a_warning_with_what_to_call_it(pairs, tmp_path, file, advice):
    samples, messages = read(pairs, tmp_path, "a_start.png", "a_end.png", file)
    assert list(samples) == ["a"]
    (message,) = messages
    assert message.startswith(f"warning: {file} ") and advice in message


def test_many_files_of_one_kind_are_one_warning(pairs, tmp_path):
    _, messages = read(pairs, tmp_path, "a_start.png", "a_end.png", *(f"p{i}.png" for i in range(40)))
    (message,) = messages
    assert "p0.png (call it p0_start.png or p0_end.png" in message and "and 37 more are not used" in message


AI_TOOLKIT = ["control_1/a.png", "control_2/a.jpg", "targets/a.png", "targets/a.txt"]


@pytest.mark.parametrize("files, meant", [
    (AI_TOOLKIT, AI_TOOLKIT),
    (["control/a.png", "control_2/a.png", "target/a.png"], ["control/a.png", "control_2/a.png", "target/a.png", None]),
    (["control/a.png", "images/a.png", "images/a.txt"], ["control/a.png", "images/a.png", "images/a.txt"]),  # musubi-tuner
    (["control/a_0.png", "control/a_1.png", "images/a.png"], ["control/a_0.png", "control/a_1.png", "images/a.png", None]),
    (["control_images/a_0000.png", "control_images/a_0001.png", "images/a.jpg", "images/a.caption"],
     ["control_images/a_0000.png", "control_images/a_0001.png", "images/a.jpg", "images/a.caption"]),
    (["reference-images/a.png", "edited-images/a.png", "edited-images/a.txt"],
     ["reference-images/a.png", "edited-images/a.png", "edited-images/a.txt"]),  # SimpleTuner
    (["start/a.png", "end/a.png"], ["start/a.png", "end/a.png", None]),
    (["start/a_start.png", "end/a_end.png"], ["start/a_start.png", "end/a_end.png", None]),
    (["Inputs/a.png", "Outputs/a.png"], ["Inputs/a.png", "Outputs/a.png", None]),
    (["before/a.png", "after/a.png", "captions/a.txt"], ["before/a.png", "after/a.png", "captions/a.txt"]),
    (["a_start.png", "a_end.png", "captions/a.txt"], ["a_start.png", "a_end.png", "captions/a.txt"]),
    (["a_start.png", "a_end.png", "a.caption"], ["a_start.png", "a_end.png", "a.caption"]),
    (["images/a.png", "captions/a.txt"], ["images/a.png", "captions/a.txt"]),
    (["control/a.png", "a.png", "a.txt"], ["control/a.png", "a.png", "a.txt"]),  # control_path within folder_path
    (["control/a.png", "control2/a.png", "a.png"], ["control/a.png", "control2/a.png", "a.png", None]),
    (["a_start.jpg", "a_start2.jpg", "a_end.jpg", "a.txt"], ["a_start.jpg", "a_start2.jpg", "a_end.jpg", "a.txt"]),  # fal
])  # fmt: skip
def test_the_layouts_of_other_trainers_are_read_as_they_are(pairs, tmp_path, files, meant):
    samples, messages = read(pairs, tmp_path, *files)
    assert samples == {"a": meant}
    assert not [message for message in messages if not message.startswith("note: ")]


def test_a_folder_of_originals_beside_images_makes_no_pairs(pairs, tmp_path):
    samples, messages = read(pairs, tmp_path, "original/a.png", "a.png", "a.txt")
    assert samples == {"a": ["a.png", "a.txt"]} and "original (put its files" in messages[0]


def test_several_folders_of_inputs_keep_their_order(pairs, tmp_path):
    """What only the second folder has does not become the first input."""
    samples, messages = read(pairs, tmp_path, *(f"{folder}/a.png" for folder in ("control10", "control2", "control", "target")),
                             "control/b.png", "target/b.png", "control2/c.png", "target/c.png")  # fmt: skip
    assert samples == {"a": ["control/a.png", "control2/a.png", "control10/a.png", "target/a.png", None],
                       "b": ["control/b.png", "target/b.png", None]}  # fmt: skip
    assert messages == ["error: no c image in control"]


def test_numbers_of_names_are_no_further_inputs_where_the_target_has_them_too(pairs, tmp_path):
    samples, _ = read(pairs, tmp_path, *(f"{folder}/{name}.png" for folder in ("control", "target") for name in ("a", "a_1")))
    assert samples == {"a": ["control/a.png", "target/a.png", None], "a_1": ["control/a_1.png", "target/a_1.png", None]}


LISTS = {
    "metadata.csv": 'image,prompt,edit_image\nout/1.png,"make it red, please",in/1.png\n2.png,blue,in/2.png\n',
    "metadata.json": '[{"image": "out/1.png", "prompt": "make it red, please", "edit_image": "in/1.png"},'
                     ' {"image": "2.png", "edit_image": ["in/2.png"], "prompt": "blue"}]',
    "data.jsonl": '{"image_path": "out/1.png", "control_path": "in/1.png", "caption": "make it red, please"}\n'
                  '{"image_path": "2.png", "control_path_0": "in/2.png", "caption": "blue"}\n',
    "windows.csv": '\ufeffImage,Prompt,Edit_Image\r\nout\\1.png,"make it red, please",in\\1.png\r\n2.png,blue,in\\2.png\r\n',
}  # fmt: skip


@pytest.mark.parametrize("file", LISTS)
def test_a_list_of_images_is_read(pairs, tmp_path, file):
    """As DiffSynth-Studio and musubi-tuner have them."""
    samples, messages = read(pairs, tmp_path, "in/1.png", "in/2.png", "out/1.png", "2.png", contents={file: LISTS[file]})
    assert samples == {"2": ["in/2.png", "2.png", "blue"], "out/1": ["in/1.png", "out/1.png", "make it red, please"]}
    assert not messages


def test_several_inputs_in_a_list_keep_their_order(pairs, tmp_path):
    rows = [{"image": "t.png", "edit_image": ["b.png", "a.png"]}, {"image": "t.png", "edit_image": "a.png", "prompt": "again"}]
    samples, messages = read(pairs, tmp_path, "a.png", "b.png", "t.png", contents={"x.json": json.dumps(rows)})
    assert samples == {"t": ["b.png", "a.png", "t.png", None], "t (2)": ["a.png", "t.png", "again"]} and not messages


def test_what_a_list_does_not_name_or_names_in_vain_is_told(pairs, tmp_path):
    rows = [{"image": "a.png"}, {"image": "gone.png"}, {"image": "../up.png"}, {"image": "/etc/x.png"}]
    touch(tmp_path, "up.png")
    content = {"metadata.jsonl": "\n".join(map(json.dumps, rows))}
    samples, messages = read(pairs, tmp_path / "data", "a.png", "c.png", "more/b.png", contents=content)
    assert samples == {"a": ["a.png", None]}
    assert messages == [
        *(f"error: metadata.jsonl, entry {i}: there is no image {rows[i - 1]['image']!r} in this folder" for i in (2, 3, 4)),
        "warning: c.png is not used: metadata.jsonl does not name it",
        "warning: more (put its files beside the others, as NAME_start1 or the like, to use them) is not used: a folder; "
        "only the files of one folder make a dataset",
    ]


@pytest.mark.parametrize("content", ["", "{", "[]", "[1]", '{"image": "a_end.png"}', '[{"image": 5}]', "[" * 5000, '[{"image": "gone.png"}]'])
def test_another_json_file_is_no_list(pairs, tmp_path, content):
    samples, messages = read(pairs, tmp_path, "a_start.png", "a_end.png", contents={"settings.json": content})
    assert list(samples) == ["a"] and messages == ["warning: settings.json is not used: no list of images that are in this folder"]


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
    (tmp_path / "c_end.png").symlink_to(tmp_path / "c_end.png")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    found, reason = pairs.match(tmp_path), "a link that leads nowhere, or no file that can be read"
    assert list(names(found)) == ["a"]
    assert dict(found.unused) == dict.fromkeys(["b_start.png", "c_end.png", "round"], reason)
    assert [f.message for f in found.findings] == [f"b_start.png and c_end.png are not used: {reason}"]


def test_a_folder_that_may_not_be_listed_is_one_finding(pairs, tmp_path, monkeypatch):
    touch(tmp_path, "a_start.png", "a_end.png", "captions/a.txt", "private/b_start.png")
    scandir = os.scandir

    def guarded(path):
        if Path(path).name in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(pairs.os, "scandir", guarded)
    closed = {"private"}
    found = pairs.match(tmp_path)
    assert list(names(found)) == ["a"] and found.samples[0].caption_file == tmp_path / "captions/a.txt"
    assert [(f.level, f.message) for f in found.findings] == [
        ("warning", "private is not used: a folder that cannot be read")]  # fmt: skip
    closed = {tmp_path.name}
    with pytest.raises(pairs.DatasetError, match=r"The folder .* cannot be read \(Permission denied\)"):
        pairs.match(tmp_path)


def test_a_name_that_is_no_text(pairs, tmp_path):
    folder = os.fsencode(tmp_path)
    for name in (b"\xff_start.png", b"\xff_end.png"):
        with open(os.path.join(folder, name), "wb"):
            pass
    (sample,) = (found := pairs.match(tmp_path)).samples
    for shown in (sample.name, *map(found.relative, sample.images)):
        assert shown.encode() and "udcff" in shown, "text that can be sent and saved"


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
ROLES = st.sampled_from(["", "_before", "_after", "_input2", "-start", "_end (1)", "_start", "_START", "_start0", "_start1", "_start2", "_start01", "_start10", "_end", "_End"])
SUFFIXES = st.sampled_from([".png", ".PNG", ".jpg", ".txt", ".TXT", ".psd", "", ".zip", ".caption", ".heic", ".json"])
FOLDERS = st.sampled_from(["", "", "", "control/", "before/", "after/", "input/", "output/", "deep/er/", "After/", "control_2/", "captions/"])
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
        for file, reason in found.unused:  # nothing that may have been meant is left out without a word
            if Path(file).suffix.lower() in pairs.IMAGE_SUFFIXES | pairs.CAPTION_SUFFIXES | {".heic", ".psd", ".json"}:
                told = [reason.split("; ")[0], reason, file]
                assert any(text in finding.message for finding in found.findings for text in told), (file, reason)

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


def test_what_left_out_txt_names_is_no_sample_and_its_files_are_named(pairs, tmp_path):
    touch(tmp_path, *[f"{name}_{role}.png" for name in ("a", "b", "é") for role in ("start", "end")], "b.txt")
    (tmp_path / "left_out.txt").write_text("\ufeffb\r\n\ne\u0301\nc\n", encoding="utf-8")
    found = pairs.match(tmp_path)
    assert list(names(found)) == ["a"] and [sample.name for sample in found.left_out] == ["b", "é"]
    assert [file for file, reason in found.unused if reason == "left out by left_out.txt"] == [
        "b.txt", "b_end.png", "b_start.png", "é_end.png", "é_start.png"
    ]  # fmt: skip
    assert [(f.level, f.message[:40]) for f in found.findings] == [
        ("note", "left out by left_out.txt: b, é"), ("warning", "left_out.txt names c, which is no comple")
    ]  # fmt: skip
    (tmp_path / "left_out.txt").write_bytes(b"\xff")
    assert len(pairs.match(tmp_path).samples) == 3 and "UTF-8" in pairs.match(tmp_path).findings[0].message


def test_left_out_txt_lies_in_the_folder_that_holds_the_pairs(pairs, tmp_path):
    touch(tmp_path, *[f"in/{folder}/{name}.png" for folder in ("before", "after") for name in "ab"])
    (tmp_path / "in/left_out.txt").write_text("b")
    assert list(names(pairs.match(tmp_path))) == ["a"]
    (tmp_path / "in/left_out.txt").rename(tmp_path / "in/after/left_out.txt")
    assert ("in/after/left_out.txt", "left_out.txt counts in the folder itself") in pairs.match(tmp_path).unused
