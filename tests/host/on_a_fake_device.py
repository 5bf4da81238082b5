"""Run by test_devices.py in a process of its own, which it leaves with another device: one training step of every family,
but for backward, on fake tensors of that device. They have no values, and refuse to be mixed with those on the CPU."""
import json
import sys
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils import backend_registration

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "demo")]

import launch  # noqa: E402

launch.choose_device()
launch.load_pack()

import zoo  # noqa: E402

import tiny  # noqa: E402

backend_registration._setup_privateuseone_for_python_backend("fake")
DEVICE = torch.device("fake:0")

to = torch.Tensor.to
torch.Tensor.to = lambda t, *a, **k: to(t if isinstance(t, FakeTensor) else t.clone(), *a, **k)
torch.Tensor.backward = lambda loss: None  # autograd has no threads for such a device


def move(module):
    """What ``module.to`` does, which fake tensors do not allow."""
    for part in module.modules():
        for name, p in part._parameters.items():
            part._parameters[name] = None if p is None else torch.nn.Parameter(p.detach().clone().to(DEVICE), False)
        part._buffers.update({name: b.clone().to(DEVICE) for name, b in part._buffers.items() if b is not None})


def step(kind) -> str:
    """What became of a step of this family."""
    steps, forward, autograd = (tiny.module(name) for name in ("step", "host.forward", "host.autograd"))
    model, samples = zoo.model(kind), [zoo.encoded(kind, i, max(kind.references, default=0)) for i in range(2)]
    training, base = tiny.Training(model), model.model.diffusion_model
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in (base, *training.lora.layers.values()):
            move(module)
        model.load_device = DEVICE
        try:
            batch = [forward.condition(model, sample) for sample in samples]
            sigma, noise = steps.draw(model, batch, "family default", torch.Generator().manual_seed(0))
            with training.lora.attached(), autograd.exact_gradients(model.model, base, tiny.how(True)):
                loss = steps.backward(model, batch, sigma, noise)
                try:
                    steps.backward(model, batch, sigma, [torch.zeros(n.shape) for n in noise])
                    return "noise that was left on the CPU was not noticed"
                except RuntimeError as error:
                    assert "same device" in str(error), error
        except (DataDependentOutputException, DynamicOutputShapeException):
            return "its code looks at values"
        for module in training.lora.modules.values():  # what our own backward computes with
            with tiny.module("host.compat").linear_weight(module, torch.float32, DEVICE) as weight:
                assert weight.device == loss.device == DEVICE, (weight.device, loss.device)
    return "stays"


print("RESULT", json.dumps({kind.name: step(kind) for kind in zoo.KINDS if not kind.missing}))
