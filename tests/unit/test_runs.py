"""Runs listed and removed from a terminal."""
import json
import subprocess
import sys

import filelock
import pytest

from host import ROOT


@pytest.fixture
def output(tmp_path):
    run = tmp_path / "pairlora/edit-0123456789"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/step000250.json").write_text("{}")
    (run / "step100.safetensors").write_bytes(bytes(3_000_000))
    (run / "run.json").write_text(json.dumps({"samples": ["a", "b"], "dataset": "pairs", "base": "flux.safetensors"}))
    old = tmp_path / "pairlora/old-0123456789"
    old.mkdir()
    (old / "step5.safetensors").write_bytes(bytes(1_000_000))
    (tmp_path / "pairlora/not-a-run").mkdir()
    return tmp_path


def terminal(*args):
    command = [sys.executable, "-m", "trainer.run", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_they_are_listed_with_what_they_take(output):
    lines = terminal(output).stdout.splitlines()
    assert lines[0].split() == "edit-0123456789 3 MB step 250, LoRA of 100; 2 samples of pairs on flux.safetensors".split()
    assert lines[1].split() == "old-0123456789 1 MB step 5, LoRA of 5; of an older version".split()
    assert lines[2] == "2 runs, 4 MB"


def test_one_is_removed_by_name_only(output):
    assert terminal(output, "--remove", "edit-0123456789").returncode == 0
    assert {path.name for path in (output / "pairlora").iterdir()} == {"old-0123456789", "not-a-run"}
    for name in ("edit-0123456789", "not-a-run", "..", ""):
        refused = terminal(output, "--remove", name)
        assert refused.returncode == 1 and "There is no run" in refused.stderr
    assert (output / "pairlora/old-0123456789").exists()


def test_one_that_is_trained_is_not_removed(output):
    with filelock.FileLock(output / "pairlora/edit-0123456789/lock"):
        refused = terminal(output, "--remove", "edit-0123456789")
    assert refused.returncode == 1 and "is being trained" in refused.stderr and (output / "pairlora/edit-0123456789").exists()
