"""A FLUX.1 Kontext of 12 billion random parameters at 1024 pixels with one reference, in bf16, on a CUDA device."""
import statistics
import time
from dataclasses import dataclass, replace

import comfy.model_management
import comfy.model_patcher
import memory
import torch
import zoo

from tiny import module, watch

SIDE, RANK, WORDS = 1024, 16, 252
STEPS = 8
MATRIX = 8192  # rows and columns


@dataclass(frozen=True)
class Ran:
    """Seconds a step, the most bytes that were allocated in one and those that were planned, and the share of the weights
    that was on the device."""

    seconds: float
    peak: int
    planned: int
    loaded: float


def matrix_rate() -> float:
    """Floating-point operations a second of large matrix products in bf16."""
    a, b = torch.randn(2, MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16)
    seconds = []
    for _ in range(25):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        a @ b
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1000)
    return 2 * MATRIX**3 / statistics.median(seconds[5:])


def kontext():
    """The model, with random weights in system memory, and a sample."""
    _, kind, _ = next(found for found in memory.kinds() if found[0] == "FLUX.1 Kontext")
    base = zoo.config_of(kind, torch.bfloat16).get_model({}, "")
    for name, p in base.diffusion_model.named_parameters():
        fan = p[0].numel() ** -0.5 if p.ndim > 1 else 0.3
        drawn = torch.randn(p.shape, device="cuda", dtype=torch.bfloat16).mul_(fan)
        p.data = (drawn + ("norm" in name and p.ndim == 1)).cpu()
    management = comfy.model_management
    model = comfy.model_patcher.ModelPatcher(base, management.get_torch_device(), management.unet_offload_device())
    caption = " ".join(["word"] * WORDS)
    return model, zoo.encoded(kind, 0, 1, size=(SIDE, SIDE), caption=caption, patcher=model)


def ran(model, sample, plan) -> Ran:
    loop, ends = module("loop"), []

    def on_step(*_) -> None:
        torch.cuda.synchronize()
        ends.append(time.perf_counter())
        if len(ends) == 2:
            torch.cuda.reset_peak_memory_stats()

    before, plans = torch.cuda.memory_allocated() - model.loaded_size(), [plan]
    loop.train(model, [sample], loop.Settings(RANK), 2 + STEPS, 1e-4, watch(on_step, plans.append), plan)
    seconds, last = [b - a for a, b in zip(ends[1:], ends[2:])], plans[-1]
    planned = last.weights - last.streamed + last.counted.total
    peak = torch.cuda.max_memory_allocated() - before
    loaded = model.loaded_size() / model.model_size()
    module("host.memory").release(model)
    torch.cuda.empty_cache()
    return Ran(statistics.median(seconds), peak, planned, loaded)


def both() -> tuple[Ran, Ran, int]:
    """With as many weights on the device as the plan says, with half of them streamed, and the floating-point operations of
    a step in which nothing is computed twice."""
    model, sample = kontext()
    plans = module("plan")
    plan = plans.choose(model, sample, 1, RANK)
    flops = plans.Simulation(model, sample, 1, RANK, model.load_device).count(module("host.recompute").NOTHING).flops
    half = plan.weights // 2
    streamed = replace(plan, needed=max(plan.needed, plan.room - half), streamed=max(plan.streamed, half))
    return ran(model, sample, plan), ran(model, sample, streamed), flops
