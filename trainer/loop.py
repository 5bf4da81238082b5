"""The training loop."""
import contextlib
import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from .host import compat, forward, memory
from .host.autograd import exact_gradients
from .host.encode import Encoded
from .host.forward import ModelPatcher
from .lora.inject import LoraLayers
from .loss_scale import LossScale
from .plan import Plan, choose
from .plan.ledger import Ledger
from .step import draw, gradient, update


@dataclass(frozen=True)
class Settings:
    """Everything beyond steps and learning rate."""

    rank: int = 16
    batch_size: int = 1
    seed: int = 0
    timesteps: str = "family default"  # see sampling.sigmas
    save_as: str = "float32"  # see lora.files.DTYPES
    accumulation: int = 1  # batches of a step, one after the other

    @property
    def samples(self) -> int:
        """Of one step."""
        return self.batch_size * self.accumulation

    def of_training(self) -> dict[str, int | str]:
        """All but how the file is stored, since one training serves files of every kind. An accumulation of 1 is not
        said: runs from before there was one go on."""
        left_out = ("save_as", "accumulation") if self.accumulation == 1 else ("save_as",)
        return {name: value for name, value in asdict(self).items() if name not in left_out}


def train(
    model: ModelPatcher,
    samples: Sequence[Encoded],
    settings: Settings,
    steps: int,
    learning_rate: float,
    on_step: Callable[[int, float], None],
    plan: Plan | None = None,
    on_warning: Callable[[str], None] = logging.warning,
    on_plan: Callable[[Plan], None] = lambda plan: None,
) -> dict[str, torch.Tensor]:
    """Train a LoRA on the very module that ``model`` holds, and leave that as it was.

    ``on_step(step, loss)`` is called after every update of the optimizer; what it raises ends the training.
    ``on_warning(text)`` hears of a model that computes otherwise when it generates, ``on_plan(plan)`` how the memory is
    used: as ``plan`` says or else as is found best, and otherwise when a step runs out of memory.
    Returns the LoRA as `diffusion_model.PATH.lora_A.weight`, `.lora_B.weight` in float32. On the CPU the same
    arguments give the same tensors.
    """
    base, device, largest = model.model, model.load_device, largest_of(samples)
    plan = plan or choose(model, largest, settings.batch_size, settings.rank, settings.accumulation)
    on_plan(plan)
    with torch.inference_mode(False):
        lora = LoraLayers(base.diffusion_model, settings.rank, settings.seed, device)
    parameters, scale = lora.parameters(), LossScale(compat.compute_dtype(base))
    fused = device.type in ("cpu", "cuda") or None  # a quarter of the time, and no room for what lies between its operations
    optimizer = torch.optim.AdamW(parameters, learning_rate, fused=fused)  # https://arxiv.org/abs/1711.05101
    generator = torch.Generator().manual_seed(settings.seed)  # on the CPU: the same noise on every device
    order = shuffled(len(samples), settings.seed)
    step, drawn, plain = 0, None, None

    while step < steps:
        memory.load(model, plan.needed)
        if plain is None:
            generating, plain = forward.trial(model, largest), forward.trial(model, largest, training=True)
            if warning := forward.kernels_warning(generating, plain):
                on_warning(warning)
        try:
            with lora.attached(), exact_gradients(base, base.diffusion_model, plan.how):
                if step == 0:
                    forward.check_unchanged(plain, forward.prediction(model, largest))
                while step < steps:
                    if drawn is None:
                        batch = [forward.condition(model, samples[next(order)]) for _ in range(settings.samples)]
                        drawn = batch, *draw(model, batch, settings.timesteps, generator)
                    with Ledger(device.type) if plan.is_unknown else contextlib.nullcontext() as ledger:
                        loss, norm = gradient(model, *drawn, plan.at_once, parameters, scale)
                    if not (math.isfinite(loss) and math.isfinite(norm)):
                        raise FloatingPointError(
                            f"At step {step + 1} the loss became {loss:g} and its gradient {norm:g}. "
                            + (f"Lower the learning rate ({learning_rate:g})." if step else
                               "Load the model with another weight_dtype, such as bf16.")
                        )  # fmt: skip
                    update(optimizer)
                    optimizer.zero_grad()
                    step, drawn = step + 1, None
                    if ledger:
                        on_plan(plan := replace(plan, measured=ledger.peak))
                    on_step(step, loss)
        except Exception as error:
            if not compat.is_out_of_memory(error) or (harder := plan.harder(device)) is None:
                raise
            on_warning(f"At step {step + 1} the memory ran out ({plan}). Trained on with {harder.words}.")
            on_plan(plan := harder)
        if step < steps:  # outside of the except, whose error holds what the step has kept
            optimizer.zero_grad()
            memory.release(model)
    return lora.state_dict()


def largest_of(samples: Sequence[Encoded]) -> Encoded:
    """The sample with the largest latents, references included."""
    return max(samples, key=lambda sample: sample.latent.numel() + sum(t.numel() for t in sample.references))


def shuffled(n: int, seed: int) -> Iterator[int]:
    """Indices below ``n`` without end: every epoch all of them, in a new order."""
    rng = random.Random(seed)
    while True:
        yield from rng.sample(range(n), n)
