"""What a step of training takes by counting, and what a real one takes on the CPU, for models of the zoo with enough blocks.

ComfyUI is not importable yet when tests are collected.
"""
import contextlib
from collections.abc import Iterator
from dataclasses import replace

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
# family, dtype of the weights and of computing, the part of the blocks recomputed, in system memory, batch, references, and
# how many of the batch at once where it is not all
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
    ("FLUX.1 Kontext", torch.bfloat16, None, HALF, False, 5, 1, 2),
    ("Qwen-Image-Edit-2509", torch.float32, None, 1, True, 2, 1, 1),
]
RANK = 4


def kinds() -> dict:
    """The zoo's, with enough blocks, by their names."""
    import zoo

    return {kind.name: replace(kind, network=kind.network | DEEP.get(kind.name, {})) for kind in zoo.KINDS}


def counted_and_measured(name, dtype, compute, part, away, batch, references, at_once=None) -> tuple[int, int]:
    """For one of the SETTINGS, the peak that is counted without weights and that of a real step, in bytes."""
    import zoo

    from tiny import module

    kind = kinds()[name]
    with torch.inference_mode():  # as the executor runs it
        model = zoo.model(kind, dtype, compute=compute)
        samples = [zoo.encoded(kind, i, references, size=(256, 192), caption="one caption") for i in range(batch)]
        simulation = module("plan.simulate").Simulation(model, samples[0], batch, RANK, torch.device("cpu"))
        how = module("host.recompute").Recompute(round(part * simulation.blocks), away)
        counted = simulation.count(how, at_once=at_once).peak
    return counted, measured(model, samples, how, at_once)


def measured(model, encoded, how, at_once=None) -> int:
    """The most bytes of a real step that are alive at once, beside the weights, the LoRA and the moments of AdamW."""
    import tiny
    from tiny import module

    training = tiny.Training(model, rank=RANK)
    base, parameters, ledger = model.model, training.lora.parameters(), module("plan.ledger").Ledger("cpu")
    condition, step = module("host.forward").condition, module("step")
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
    exact_gradients = module("host.autograd").exact_gradients(base, base.diffusion_model, how)
    with system_memory_apart(), training.lora.attached(), exact_gradients, ledger:
        taken = [copied(sample) for sample in samples]
        noise = [n.clone() for n in noise]
        step.backward(model, taken, sigma, noise, at_once)
        del taken, noise
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return ledger.peak


@contextlib.contextmanager
def system_memory_apart() -> Iterator[None]:
    """What a device would leave in system memory is not counted, though on the CPU it is the same memory."""
    from tiny import module

    recompute = module("host.recompute")
    kept = recompute._in_system_memory

    def elsewhere(t: torch.Tensor) -> torch.Tensor:
        with _disable_current_modes():
            return kept(t)

    recompute._in_system_memory = elsewhere
    try:
        yield
    finally:
        recompute._in_system_memory = kept


def copied(sample):
    """The conditioned sample, with tensors of its own."""
    from tiny import module

    copied, conds = module("host.encode").copied, sample.conds
    return replace(sample, x0=sample.x0.clone(), conds={name: type(c)(copied(c.cond, "cpu")) for name, c in conds.items()})
