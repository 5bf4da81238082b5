"""peft's layers come about whatever else is installed, and what is missing is said with the line that mends it."""
import os
import subprocess
import sys

import pytest
import torch

from host import ROOT

VERSIONS = {"torchao": "0.10.0", "gptqmodel": "1.0"}  # which peft refuses
BROKEN = "bitsandbytes auto_gptq awq hqq eetq aqlm neural_compressor optimum transformer_engine torch_xla deepspeed".split()

BUILD = """
import sys
sys.path[:0] = ["demo", "tests"]
import launch
from host import Host
launch.prepare(str(Host().comfyui)), launch.choose_device(), launch.load_pack()
import tiny, torch

class NotInstalled:
    def find_spec(name, path=None, target=None):
        if name == hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled)
for hidden in sys.argv[1:]:
    try:
        tiny.module("lora.inject").LoraLayers(torch.nn.Linear(4, 4), 1, 0, torch.device("cpu"))
    except RuntimeError as error:
        print(error)
hidden = None
layers = tiny.module("lora.inject").LoraLayers(tiny.flux().model.diffusion_model, 4, 11, torch.device("cpu"))
print(len(layers.layers), "layers;", *sorted({type(layer).__module__ for layer in layers.layers.values()}))
"""


def built(*hidden, path=""):
    """The lines that a Python of its own prints, in which the ``hidden`` packages are first not installed."""
    command = [sys.executable, "-c", BUILD, *hidden]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()


def install(folder, name, code):
    version = VERSIONS.get(name, "0.1")
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize("broken", [BROKEN, ["torchao"], []], ids=["all others", "torchao", "none"])
def test_quantisers_are_no_matter(comfy, tmp_path, broken):
    """Those that are of the wrong version, or hold nothing, or cannot even be imported."""
    for name in {*VERSIONS, *broken}:
        install(tmp_path, name, f"raise RuntimeError('{name} does not fit this machine')" if name in broken else "")
    assert built(path=str(tmp_path)) == ["20 layers; peft.tuners.lora.layer"]


def test_what_is_missing_is_named_with_the_line_that_installs_it(comfy):
    *errors, last = built("peft", "accelerate")
    for name, error in zip(("peft", "accelerate"), errors, strict=True):
        assert f"{name} is not installed" in error and error.endswith(f"{sys.executable} -m pip install --upgrade {name}")
    assert last.startswith("20 layers"), "and the next queue finds what was installed"


def test_a_package_that_is_broken_is_named(trainer, tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise ImportError('compiled for another machine')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(trainer("lora.inject"), "_imported", lambda: __import__("broken_package"))
    with pytest.raises(RuntimeError, match=r"broken_package cannot be loaded \(compiled for another machine\).*--upgrade broken_p"):
        trainer("lora.inject").LoraLayers(torch.nn.Linear(4, 4), 1, 0, torch.device("cpu"))


def test_layers_start_as_peft_itself_starts_them(tiny, trainer):
    import peft

    model = tiny.flux().model.diffusion_model
    layers = trainer("lora.inject").LoraLayers(model, 3, 11, torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        config = peft.LoraConfig(r=3, lora_alpha=3, target_modules=list(layers.modules))
        theirs = peft.LoraModel(tiny.flux().model.diffusion_model, config, "default")
    for path, layer in layers.layers.items():
        for name in ("lora_A", "lora_B"):
            assert torch.equal(getattr(layer, name)["default"].weight, getattr(theirs.model.get_submodule(path), name)["default"].weight)
    assert len(layers.layers) == 20


def test_no_generator_of_a_device_is_seeded(tiny, trainer, monkeypatch):
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("it reseeds every device and puts none back"))
    before = torch.random.get_rng_state()
    trainer("lora.inject").LoraLayers(tiny.flux().model.diffusion_model, 2, 5, torch.device("cpu"))
    assert torch.equal(torch.random.get_rng_state(), before)
