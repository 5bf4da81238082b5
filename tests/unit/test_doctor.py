"""`python3 -m trainer.data FOLDER`, as a user runs it."""
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from pictures import edited, textured

from host import ROOT

PLAIN = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "comfy", "safetensors", "folder_paths"):
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Refuse())
sys.argv = ["trainer.data", *sys.argv[1:]]
import runpy
runpy.run_module("trainer.data", run_name="__main__")
"""


def doctor(*arguments, start=("-m", "trainer.data")):
    command = [sys.executable, *start, *map(os.fspath, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=60)


def listing(*arguments):
    done = doctor(*arguments, "--json")
    return json.loads(done.stdout), done.returncode


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    for i, name in enumerate(("photo2", "photo10")):
        start = textured(i, (64, 64))
        start.save(folder / f"{name}_start.png")
        edited(start, i + 9).save(folder / f"{name}_end.png")
        (folder / f"{name}.txt").write_text("remove the hat")
    textured(7, (64, 64)).save(folder / "photo10_start10.png")
    textured(8, (64, 64)).save(folder / "photo10_start2.png")
    return folder


def test_a_good_folder_exits_with_0_and_a_report_that_ends_with_the_checklist(folder):
    done = doctor(folder, "--resolution", "64")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "pairs: 2 pairs with 1 or 3 input images each, 2 with a caption"
    assert lines[-8] == "checklist" and lines[-1].endswith("not trained on")


def test_it_needs_pillow_and_numpy_only(folder):
    done = doctor(folder, "--resolution", "64", start=("-c", PLAIN))
    assert done.returncode == 0 and "2 pairs" in done.stdout, done.stderr


def test_json_is_one_object_with_names_relative_to_the_folder(folder):
    found, code = listing(folder, "--resolution", "64")
    assert code == 0 and list(found) == ["samples", "unused", "findings"]
    assert found["samples"] == [
        {"name": "photo2", "starts": ["photo2_start.png"], "end": "photo2_end.png", "caption": "remove the hat",
         "caption_file": "photo2.txt"},
        {"name": "photo10", "starts": ["photo10_start.png", "photo10_start2.png", "photo10_start10.png"],
         "end": "photo10_end.png", "caption": "remove the hat", "caption_file": "photo10.txt"},
    ]  # fmt: skip
    assert found["unused"] == []
    assert [(f["level"], f["code"], f["sample"], sorted(f)) for f in found["findings"]] == [
        ("note", "gap", "photo10", ["code", "level", "message", "sample"])
    ]


def test_errors_exit_with_1_and_name_what_is_left_out(folder):
    (folder / "photo2_end.png").unlink()
    found, code = listing(folder, "--resolution", "64")
    assert code == 1 and [sample["name"] for sample in found["samples"]] == ["photo10"]
    assert found["unused"] == [
        {"file": file, "reason": "no photo2_end image"} for file in ("photo2.txt", "photo2_start.png")
    ]
    error = found["findings"][0]
    assert (error["level"], error["code"], error["sample"]) == ("error", "missing-target", "photo2")
    assert "photo2: no photo2_end image" in doctor(folder).stdout


def test_an_unpaired_sample_has_no_starts_and_its_image_in_end(tmp_path):
    textured(1, (64, 64)).save(tmp_path / "cat.png")
    (tmp_path / "cat.txt").write_text("a cat")
    (sample,) = listing(tmp_path)[0]["samples"]
    assert (sample["starts"], sample["end"], sample["caption"]) == ([], "cat.png", "a cat")


@pytest.mark.parametrize("before, after", [("before", "after"), ("input", "output"), ("Control", "Target"), ("source", "target")])
def test_two_folders_of_equal_names_and_a_zip_of_them_are_read_without_renaming(folder, tmp_path, before, after):
    root = tmp_path / "other"
    for name, role in ((before, "start"), (after, "end")):
        (root / name).mkdir(parents=True)
        shutil.copy(folder / f"photo2_{role}.png", root / name / "one.png")
    shutil.copy(folder / "photo2.txt", root / after / "one.txt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        for path in root.rglob("*.*"):
            file.write(path, f"other/{path.relative_to(root)}")
    for place, prefix in ((root, ""), (tmp_path / "other.zip", "other/")):
        found, code = listing(place, "--resolution", "64")
        (sample,) = found["samples"]
        files = [*sample["starts"], sample["end"], sample["caption_file"]]
        assert code == 0 and not found["unused"]
        assert [file.removeprefix(prefix) for file in files] == [f"{before}/one.png", f"{after}/one.png", f"{after}/one.txt"]
        assert f"equal names in {prefix}{before} and {prefix}{after}" in doctor(place).stdout


def test_the_options_of_the_node_are_there(folder):
    (folder / "photo2.txt").unlink()
    options = ("--resolution", "128", "--default-caption", "edit it", "--trigger-word", "zz")
    found, _ = listing(folder, *options)
    assert [sample["caption"] for sample in found["samples"]] == ["zz, edit it", "zz, remove the hat"]
    assert {f["sample"] for f in found["findings"] if f["code"] == "upscaled"} == {"photo2", "photo10"}
    assert doctor(folder, "--resolution", "8").returncode == 2


def test_a_missing_folder_is_named(tmp_path):
    done = doctor(tmp_path / "nowhere")
    assert done.returncode == 1 and f"There is no folder {tmp_path / 'nowhere'}" in done.stdout
    found, code = listing(tmp_path / "nowhere")
    assert code == 1 and found["samples"] == [] and "nowhere" in found["findings"][0]["message"]


def test_a_reader_that_has_seen_enough_is_no_crash(folder):
    command = [sys.executable, "-m", "trainer.data", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        run.stdout.close()
        assert run.wait(60) == 1 and run.stderr.read() == ""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are always text")
def test_a_name_that_is_not_text_is_printed_all_the_same(folder):
    os.rename(folder / "photo2_end.png", os.fsencode(folder) + b"/photo\xff2_end.png")
    done = doctor(folder)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "photo10" in done.stdout
    assert listing(folder)[1] == 1
