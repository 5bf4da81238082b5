"""demo/run.py as a user runs it: what it prints, and where it leaves what it made."""
import json
import subprocess
import sys
import time

import pytest

from host import ROOT


def demo(*args, **options):
    return subprocess.Popen([sys.executable, str(ROOT / "demo/run.py"), *args], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, **options)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["background-removal", "try-on"])
def test_the_demo_ends_with_paths_and_figures(tmp_path, dataset):
    start, lines, first_step = time.monotonic(), [], None
    process = demo("--dataset", dataset, "--steps", "3", "--out", str(tmp_path / "out"))
    for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith("step 1/3  loss") and first_step is None:
            first_step = time.monotonic() - start
    assert process.wait() == 0, "\n".join(lines)
    print(f"first step after {first_step:.0f} s")
    assert first_step < 60  # half of that on a machine that does nothing else
    result = json.loads(lines[-1])
    assert list(result) == ["dataset", "steps", "train_seconds", "psnr_input", "psnr_before", "psnr_after", "psnr_blank",
                            "psnr_subject_before", "psnr_subject_after", "psnr_swapped", "best_step", "held_out_loss_first",
                            "held_out_loss_best", "verdict", "resumed_from", "lora_sha256", "lora", "picture"]  # fmt: skip
    assert (result["dataset"], result["steps"]) == (dataset, 3)
    absent = {"background-removal": {"psnr_swapped"}, "try-on": {"psnr_blank", "psnr_subject_before", "psnr_subject_after"}}
    assert {key for key, value in result.items() if value is None} == absent[dataset]
    for key in ("lora", "picture"):
        assert (tmp_path / "out" / f"{dataset}-01") == type(tmp_path)(result[key]).parent
        assert type(tmp_path)(result[key]).stat().st_size > 1000
        assert any(result[key] in line for line in lines[:-1])


@pytest.mark.slow
@pytest.mark.skipif("os.name == 'nt'", reason="there is no kill -9")
def test_killed_it_gives_the_same_lora(tmp_path):
    results = []
    for args in (["--kill-at", "30"], []):
        process = demo("--steps", "60", "--out", str(tmp_path), *args)
        output = process.communicate()[0]
        assert process.returncode == 0, output
        results.append(json.loads(output.splitlines()[-1]))
    killed, unbroken = results
    assert killed["resumed_from"] < 60 and unbroken["resumed_from"] == 0
    assert killed["lora_sha256"] == unbroken["lora_sha256"] and killed["verdict"] == unbroken["verdict"] == "still learning"


@pytest.mark.parametrize("args, message", [
    (("--steps", "0"), "steps"), (("--learning-rate", "7"), "learning_rate"), (("--port", "PORT"), "--port"),
])  # fmt: skip
def test_the_demo_refuses_bad_options(tmp_path, server, args, message):
    args = [str(server.server.port) if arg == "PORT" else arg for arg in args]
    process = demo(*args, "--out", str(tmp_path))
    output = process.communicate()[0]
    assert process.returncode == 1 and message in output and "Traceback" not in output
