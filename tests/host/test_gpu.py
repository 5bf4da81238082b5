"""What only a CUDA device can show of the memory plan: `python3 tests/run.py -m gpu tests/host/test_gpu.py`."""
from dataclasses import replace

import pytest
import torch

pytestmark = pytest.mark.gpu
MIB = 1024**2


@pytest.fixture
def flux(zoo):
    """`flux(dtype, compute)`: a Flux of 300 million parameters on the device, and samples with a reference each."""
    import comfy.model_management

    kind = next(kind for kind in zoo.KINDS if kind.name == "FLUX.1 Kontext")
    network = {"depth": 6, "depth_single_blocks": 10, "hidden_size": 1536, "num_heads": 12, "axes_dim": [16, 56, 56]}
    kind = replace(kind, network=kind.network | network)

    def build(dtype=torch.bfloat16, compute=None):
        with torch.inference_mode():
            return zoo.model(kind, dtype, compute=compute), [zoo.encoded(kind, i, 1, size=(512, 512)) for i in range(2)]

    yield build
    comfy.model_management.unload_all_models()


@pytest.fixture
def gradient(tiny, trainer, monkeypatch):
    """`gradient(model, samples, how)`: a gradient, and the most bytes that the device held for it at once."""

    def compute(model, samples, how, load=0):
        with torch.inference_mode():
            trainer("host.memory").load(model, load)
        monkeypatch.setattr(tiny, "how", lambda checkpointing: how)
        training = tiny.Training(model, rank=16)
        conditioned = [trainer("host.forward").condition(model, sample) for sample in samples]
        sigma, noise = tiny.draws(conditioned)
        training.gradient(conditioned, sigma, noise)  # cuBLAS takes its workspace
        for p in training.lora.parameters():
            p.grad = None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found = training.gradient(conditioned, sigma, noise)
        return found, torch.cuda.max_memory_allocated() - before

    return compute


def ways(trainer):
    recompute = trainer("host.recompute")
    return [recompute.NOTHING, recompute.Recompute(8), recompute.Recompute(16), recompute.Recompute(16, True)]


@pytest.mark.parametrize("dtype, compute", [
    (torch.bfloat16, None), (torch.float16, None), (torch.float8_e4m3fn, torch.bfloat16),
], ids=str)  # fmt: skip
def test_the_plan_against_the_card(flux, gradient, trainer, dtype, compute):
    model, samples = flux(dtype, compute)
    simulation = trainer("plan.simulate").Simulation(model, samples[0], 1, 16, model.load_device)
    for how in ways(trainer):
        _, measured = gradient(model, samples[:1], how)
        counted = simulation.count(how).peak
        print(f"{dtype} {how}: counted {counted / MIB:.0f} MiB, on the card {measured / MIB:.0f} MiB")
        assert counted == pytest.approx(measured, rel=0.1)


def test_every_way_gives_the_same_gradient(flux, gradient, trainer, tiny):
    model, samples = flux()
    kept, *others = (gradient(model, samples, how)[0] for how in ways(trainer))
    assert all(tiny.relative(other, kept) < 1e-2 for other in others), "attention's backward adds up in any order"


def test_streamed_against_resident(flux, gradient, trainer, tiny):
    import comfy.model_management

    model, samples = flux()
    how = ways(trainer)[-1]
    resident, _ = gradient(model, samples, how)
    comfy.model_management.unload_all_models()
    free = comfy.model_management.get_free_memory(model.load_device)
    streamed, _ = gradient(model, samples, how, load=free - model.model_size() // 2)
    assert tiny.relative(streamed, resident) < 1e-2


def test_out_of_memory_steps_down_and_previews_go_on(tiny, flux, trainer):
    model, samples = flux()
    loop, forward, warnings, steps = trainer("loop"), trainer("host.forward"), [], []
    plan = replace(trainer("plan").choose(model, samples[0], 1, 16), how=trainer("host.recompute").NOTHING)
    total = torch.cuda.get_device_properties(0).total_memory
    there = torch.cuda.memory_allocated() + model.model_size() + plan.counted.total // 3

    def on_step(step, loss):
        steps.append(step)
        forward.trial(model, samples[0])

    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(there / total)
    try:
        with torch.inference_mode():
            lora = loop.train(model, samples, loop.Settings(16), 4, 1e-4, tiny.watch(on_step, on_warning=warnings.append), plan)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    print(warnings)
    assert steps == [1, 2, 3, 4] and any("the memory ran out" in warning for warning in warnings)
    assert all(torch.isfinite(t).all() for t in lora.values())
