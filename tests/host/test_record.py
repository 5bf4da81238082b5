"""What a run leaves on disk: nothing half written, nothing overwritten, nothing trained twice."""
import json

import pytest
import torch


@pytest.fixture
def record(trainer, tmp_path):
    """`record(name)`: of one and the same training, which has finished once it was saved."""

    def make(name="edit", key="0123456789abcdef", steps=10):
        return trainer("run.record").Record(str(tmp_path / "output"), name, key, steps)

    return make


@pytest.fixture
def finished(record):
    made = record()
    made.save({made.last: {"a": torch.ones(2)}}, {"format": "pt"})
    made.write({"files": {}, "report": "6 samples"})
    return made


@pytest.fixture
def loras(tmp_path):
    return tmp_path / "loras"


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_run_has_finished_once_its_note_is_whole(record, finished):
    assert record().read()["report"] == "6 samples"
    assert record(steps=11).read() is None and record(key="f" * 16).read() is None
    finished.note.write_text('{"files": {}, "rep', encoding="utf-8")
    assert record().read() is None
    finished.note.unlink()
    assert record().read() is None, "stopped before the note"


def test_a_finished_run_without_its_lora_has_not_finished(record, finished):
    finished.weights.unlink()
    assert record().read() is None


def test_the_file_goes_to_the_loras_folder_once(record, finished, loras):
    assert [record().place(str(loras), "edit") for _ in range(3)] == ["edit.safetensors"] * 3
    assert names(loras) == ["edit.safetensors"]
    assert (loras / "edit.safetensors").read_bytes() == finished.weights.read_bytes()
    assert names(finished.weights.parent) == ["step10.json", "step10.safetensors"], "and no part is left"


def test_another_file_of_that_name_stays(finished, loras):
    loras.mkdir()
    (loras / "edit.safetensors").write_bytes(b"mine")
    assert finished.place(str(loras), "edit") == "edit_02.safetensors" == finished.place(str(loras), "edit")
    assert (loras / "edit.safetensors").read_bytes() == b"mine" and len(names(loras)) == 2


def test_a_file_that_was_moved_away_comes_back(finished, loras):
    finished.place(str(loras), "edit")
    (loras / "edit.safetensors").unlink()
    assert finished.place(str(loras), "edit") == "edit.safetensors" and names(loras) == ["edit.safetensors"]


def test_under_another_name_it_is_the_same_run(record, finished, loras):
    finished.place(str(loras), "edit")
    other = record("better name")
    assert other.read()["report"] == "6 samples" and other.place(str(loras), "better name") == "better name.safetensors"
    assert names(loras) == ["better name.safetensors", "edit.safetensors"]
    assert json.loads(other.note.read_text())["files"] == {"edit": "edit.safetensors", "better name": "better name.safetensors"}


def test_a_full_disk_leaves_no_part_of_a_lora_under_its_name(trainer, finished, loras, monkeypatch):
    def copy(source, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(trainer("run.record").shutil, "copyfile", copy)
        with pytest.raises(OSError, match="No space left"):
            finished.place(str(loras), "edit")
    assert not list(loras.glob("*.safetensors"))
    assert finished.place(str(loras), "edit") == "edit.safetensors" and names(loras) == ["edit.safetensors"]
