"""Without a GPU: samples and noise come from the CPU, and all that a step computes with is on the model's device."""
import json
import subprocess
import sys

import pytest
import torch.utils.backend_registration

from host import LAUNCH, ROOT

LOOK_AT_VALUES = {"OmniGen2", "HiDream-E1", "Lumina2", "Z-Image", "Z-Image Omni", "Boogu"}  # fake tensors have none


def test_a_step_stays_on_the_models_device(host):
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch cannot fake a device")
    script = ROOT / "tests/host/on_a_fake_device.py"
    done = subprocess.run([sys.executable, str(LAUNCH), str(host.comfyui), str(script)], capture_output=True, text=True)
    result = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if not result:
        pytest.fail(done.stderr[-3000:])
    print(result[0])
    for name, outcome in json.loads(result[0].removeprefix("RESULT")).items():
        assert outcome == ("its code looks at values" if name in LOOK_AT_VALUES else "stays"), name
