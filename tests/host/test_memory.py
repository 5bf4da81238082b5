"""Training holds no second copy of the base."""
import subprocess
import sys

import pytest

from host import LAUNCH, ROOT

SCRIPT = """
import sys, threading, time
sys.path[:0] = [{tests!r}, {demo!r}]
import launch
launch.choose_device()
launch.load_pack()
import psutil, tiny, torch

def rss():
    return psutil.Process().memory_info().rss

def train(steps):
    with torch.inference_mode():
        tiny.module("loop").train(model, samples, settings, steps, 1e-3, tiny.watch(lambda step, loss: peak.append(rss())),
                                  plan=tiny.plan(True))

with torch.inference_mode():
    model = tiny.flux(torch.float32, hidden=768, heads=6, axes=(16, 56, 56), depth=5)
    samples = [tiny.encoded(1)]
import peft  # the library itself is not the model's memory
settings, peak = tiny.module("loop").Settings(4, 1, 0), []
base = model.model_size()
before = rss()
done = threading.Event()
def watch():
    while not done.wait(0.01):
        peak.append(rss())
thread = threading.Thread(target=watch); thread.start()
train(3)
done.set(); thread.join()
parameters = sum(p.numel() for p in model.model.diffusion_model.parameters())
print("RESULT", parameters, base, max(peak) - before)
"""


def test_the_process_grows_by_less_than_half_the_base(host, tmp_path):
    script = tmp_path / "grow.py"
    script.write_text(SCRIPT.format(tests=str(ROOT / "tests"), demo=str(ROOT / "demo")))
    command = [sys.executable, str(LAUNCH), str(host.comfyui), str(script)]
    done = subprocess.run(command, capture_output=True, text=True)
    result = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if not result:
        pytest.fail(done.stderr[-3000:])
    parameters, base, growth = map(int, result[0].split()[1:])
    print(f"{parameters / 1e6:.0f}M parameters, {base / 1e6:.0f} MB; training grew the process by {growth / 1e6:.0f} MB")
    assert parameters >= 100e6
    assert growth < base / 2
