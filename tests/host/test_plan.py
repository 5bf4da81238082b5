"""What a plan counts on a model without weights is what a real step takes, and the plan is the cheapest that fits."""
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

DEEP = {
    "FLUX.1 Kontext": {"depth": 6, "depth_single_blocks": 7, "hidden_size": 128, "axes_dim": [16, 24, 24]},
    "FLUX.2": {"depth": 2, "depth_single_blocks": 9, "hidden_size": 128, "axes_dim": [16] * 4},
    "FLUX.2 klein": {"depth": 5, "depth_single_blocks": 6, "hidden_size": 128, "axes_dim": [16] * 4},
    "Qwen-Image-Edit-2509": {"num_layers": 8, "attention_head_dim": 64, "axes_dims_rope": (16, 24, 24)},
    "OmniGen2": {"num_layers": 7, "hidden_size": 128, "axes_dim_rope": (16, 24, 24)},
    "Z-Image": {"n_layers": 7},
    "Chroma": {"depth": 5, "depth_single_blocks": 6},
    "SDXL InstructPix2Pix": {"transformer_depth": [1, 3]},
}
HALF = 0.5
# family, dtype of the weights and of computing, the part of the blocks recomputed, in system memory, batch, references
SETTINGS = [
    ("FLUX.1 Kontext", torch.float32, None, 0, False, 1, 1),
    ("FLUX.1 Kontext", torch.bfloat16, None, 1, False, 1, 2),
    ("FLUX.1 Kontext", torch.bfloat16, None, HALF, False, 2, 1),
    ("FLUX.1 Kontext", torch.float8_e4m3fn, torch.bfloat16, 1, True, 1, 1),
    ("FLUX.2", torch.bfloat16, None, 1, True, 1, 3),
    ("FLUX.2 klein", torch.float32, None, HALF, False, 1, 1),
    ("Qwen-Image-Edit-2509", torch.bfloat16, None, 1, False, 1, 3),
    ("Qwen-Image-Edit-2509", torch.float8_e4m3fn, torch.bfloat16, HALF, False, 1, 1),
    ("OmniGen2", torch.float32, None, 1, False, 1, 1),
    ("Z-Image", torch.bfloat16, None, 0, False, 2, 0),
    ("Chroma", torch.float32, None, 1, True, 1, 0),
    ("SD1.5 InstructPix2Pix", torch.float16, None, 0, False, 2, 1),
    ("SDXL InstructPix2Pix", torch.float32, None, HALF, False, 1, 1),
    ("SDXL InstructPix2Pix", torch.float16, None, 1, False, 2, 1),
]


@pytest.fixture
def kinds(zoo):
    return {kind.name: replace(kind, network=kind.network | DEEP.get(kind.name, {})) for kind in zoo.KINDS}


@pytest.fixture
def real(tiny, trainer, monkeypatch):
    """`real(model, samples, rank, how)`: the most bytes of a real step that are alive at once, on the CPU, beside the
    weights, the LoRA and the moments of AdamW."""

    recompute = trainer("host.recompute")
    kept = recompute._in_system_memory

    def elsewhere(t):
        with _disable_current_modes():  # here it is the same memory
            return kept(t)

    monkeypatch.setattr(recompute, "_in_system_memory", elsewhere)

    def measured(model, encoded, rank, how):
        training = tiny.Training(model, rank=rank)
        base, parameters, ledger = model.model, training.lora.parameters(), trainer("plan.ledger").Ledger("cpu")
        condition, step = trainer("host.forward").condition, trainer("step")
        with torch.inference_mode(False):
            optimizer = torch.optim.AdamW(parameters)
            for p in parameters:
                p.grad = torch.zeros_like(p)
            optimizer.step()
            optimizer.zero_grad()
        samples = [condition(model, sample) for sample in encoded]
        sigma, noise = tiny.draws(samples)
        state = [v for of in optimizer.state.values() for v in of.values()]
        ledger.there_before([*base.parameters(), *base.buffers(), *parameters, *state])
        with training.lora.attached(), trainer("host.autograd").exact_gradients(base, base.diffusion_model, how), ledger:
            taken = [copy(trainer, sample) for sample in samples]
            noise = [n.clone() for n in noise]
            step.backward(model, taken, sigma, noise)
            del taken, noise
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        return ledger.peak

    return measured


def copy(trainer, sample):
    copied, conds = trainer("host.encode").copied, sample.conds
    return replace(sample, x0=sample.x0.clone(), conds={name: type(c)(copied(c.cond, "cpu")) for name, c in conds.items()})


@pytest.mark.parametrize("name, dtype, compute, part, away, batch, references", SETTINGS, ids=str)
def test_what_is_counted_is_what_a_step_takes(zoo, trainer, kinds, real, name, dtype, compute, part, away, batch, references):
    kind, recompute = kinds[name], trainer("host.recompute")
    model = zoo.model(kind, dtype, compute=compute)
    samples = [zoo.encoded(kind, i, references, size=(256, 192), caption="one caption") for i in range(batch)]
    simulation = trainer("plan.simulate").Simulation(model, samples[0], batch, 4, torch.device("cpu"))
    how = recompute.Recompute(round(part * simulation.blocks), away)
    counted, measured = simulation.count(how), real(model, samples, 4, how)
    print(f"{name}: counted {counted.peak / 1e6:.2f} MB, measured {measured / 1e6:.2f} MB, {counted.peak / measured - 1:+.2%}")
    assert counted.peak == pytest.approx(measured, rel=0.01)
