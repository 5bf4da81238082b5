"""What a run has on disk, read while another process may write there."""
import json

import filelock
import pytest


@pytest.fixture
def history(trainer):
    return trainer("run.history")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pairlora/edit-0123456789"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    return folder


def test_metrics_are_given_from_a_byte_on_in_whole_lines(history, folder, monkeypatch):
    metrics = folder / "metrics.jsonl"
    assert history.history(folder, 0)["lines"] == []
    metrics.write_bytes(b'{"step": 1, "loss": 0.5}\n{"step": 2, "psnr": Infinity}\n{"step": 3, "lo')
    first = history.history(folder, 0)
    assert first["lines"] == [{"step": 1, "loss": 0.5}, {"step": 2, "psnr": None}]
    again = history.history(folder, first["next"])
    assert again["lines"] == [] and again["next"] == first["next"], "a line that is not whole is not given"
    with metrics.open("ab") as opened:
        opened.write(b'ss": 0.25}\n{"torn\n\n[1]\n{"step": 4}\n')
    then = history.history(folder, first["next"])
    assert then["lines"] == [{"step": 3, "loss": 0.25}, {"step": 4}] and then["next"] == metrics.stat().st_size
    monkeypatch.setattr(history, "MOST", 1)
    assert history.history(folder, 0)["lines"] == first["lines"][:1]
    metrics.write_bytes(b'{"step": 1}\n')
    assert history.history(folder, then["next"])["lines"] == [{"step": 1}], "it was made anew"


def test_it_says_whether_someone_trains(history, folder):
    with filelock.FileLock(folder / "lock"):
        (folder / "holder.json").write_text("{}")
        assert history.history(folder, 0)["training"]
    assert not history.history(folder, 0)["training"], "whoever did was killed"


def test_what_has_finished_is_told_and_what_is_damaged_left_out(history, folder):
    note = {"files": {"edit": "edit.safetensors"}, "report": "2 samples", "lines": ["best"], "best_step": 10, "verdict": "at its best"}
    (folder / "step20-cooled-4.json").write_text(json.dumps(note))
    (folder / "step30.json").write_text("{")
    assert history.history(folder, 0)["finished"] == [
        {"step": 20, "best_step": 10, "verdict": "at its best", "lines": ["best"], "report": "2 samples", "loras": ["edit.safetensors"]}
    ]


def test_a_run_is_found_by_its_key_only(history, folder, tmp_path):
    assert history.find(tmp_path, "0123456789") == folder
    (tmp_path / "pairlora/mine-aaaaaaaaaa").mkdir()
    for key in ("aaaaaaaaaa", "*", "", "0123456789\n", "../edit-0123456789", "01234567??", "0123456789a", "012345678A"):
        assert history.find(tmp_path, key) is None
