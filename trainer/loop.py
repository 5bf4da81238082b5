"""The training loop."""
import contextlib
import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from . import objective
from .host import compat, forward, memory, sampling
from .host.autograd import exact_gradients
from .host.encode import Encoded
from .host.forward import Conditioned, ModelPatcher
from .lora.inject import LoraLayers
from .loss_scale import LossScale


@dataclass(frozen=True)
class Settings:
    """Everything beyond steps and learning rate."""

    rank: int = 16
    batch_size: int = 1
    seed: int = 0
    timesteps: str = "family default"  # see sampling.sigmas


def train(
    model: ModelPatcher,
    samples: Sequence[Encoded],
    settings: Settings,
    steps: int,
    learning_rate: float,
    on_step: Callable[[int, float], None],
    checkpointing: bool | None = None,
    on_warning: Callable[[str], None] = logging.warning,
) -> dict[str, torch.Tensor]:
    """Train a LoRA on the very module that ``model`` holds, and leave that as it was.

    ``on_step(step, loss)`` is called after every update of the optimizer; what it raises ends the training.
    ``on_warning(text)`` hears of a model that computes otherwise when it generates.
    Returns the LoRA as `diffusion_model.PATH.lora_A.weight`, `.lora_B.weight` in float32. On the CPU the same
    arguments give the same tensors.
    """
    base, device = model.model, model.load_device
    if checkpointing is None:
        checkpointing = memory.wants_checkpointing(model)
    largest = max(samples, key=lambda sample: sample.latent.numel() + sum(t.numel() for t in sample.references))
    activations = memory.activation_estimate(model, largest, settings.batch_size, checkpointing)

    with torch.inference_mode(False):
        lora = LoraLayers(base.diffusion_model, settings.rank, settings.seed, device)
    memory.load(model, activations, trainable=sum(p.numel() for p in lora.parameters()))
    generating, plain = forward.trial(model, largest), forward.trial(model, largest, training=True)
    if warning := forward.kernels_warning(generating, plain):
        on_warning(warning)

    with contextlib.ExitStack() as stack:
        stack.enter_context(lora.attached())
        stack.enter_context(exact_gradients(base, base.diffusion_model, checkpointing))
        forward.check_unchanged(plain, forward.prediction(model, largest))
        parameters, scale = lora.parameters(), LossScale(compat.compute_dtype(base))
        optimizer = torch.optim.AdamW(parameters, learning_rate)  # https://arxiv.org/abs/1711.05101
        generator = torch.Generator().manual_seed(settings.seed)  # on the CPU: the same noise on every device
        order = shuffled(len(samples), settings.seed)
        for step in range(1, steps + 1):
            batch = [forward.condition(model, samples[next(order)]) for _ in range(settings.batch_size)]
            sigma, noise = draw(model, batch, settings.timesteps, generator)
            loss, norm = gradient(model, batch, sigma, noise, parameters, scale)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise FloatingPointError(
                    f"At step {step} the loss became {loss:g} and its gradient {norm:g}. "
                    + (f"Lower the learning rate ({learning_rate:g})." if step > 1 else
                       "Load the model with another weight_dtype, such as bf16.")
                )  # fmt: skip
            optimizer.step()
            optimizer.zero_grad()
            on_step(step, loss)
        return lora.state_dict()


def draw(
    model: ModelPatcher, batch: list[Conditioned], timesteps: str, generator: torch.Generator
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A sigma (n,) and noise, n tensors shaped like the latents, for each sample of the batch."""
    sigma = sampling.sigmas(model, batch, objective.stratified(len(batch), generator), timesteps)
    noise = [torch.randn(sample.x0.shape, generator=generator).to(sample.x0) for sample in batch]
    return sigma.to(batch[0].x0.device), noise


def gradient(
    model: ModelPatcher, batch: list[Conditioned], sigma: torch.Tensor, noise: list[torch.Tensor],
    parameters: list[torch.nn.Parameter], scale: LossScale,
) -> tuple[float, float]:  # fmt: skip
    """Leave the gradient of the mean loss of ``batch``, clipped to a norm of 1, in ``parameters``.

    Returns the loss and the norm before clipping. If either is not finite, no optimizer may use the gradient; a gradient
    that only the ``scale`` has made overflow is computed again with a smaller one.
    """
    while True:
        loss = backward(model, batch, sigma, noise, scale.value).item()
        norm = torch.nn.utils.clip_grad_norm_(parameters, scale.value).item() / scale.value
        if math.isfinite(norm):
            scale.grow()
            break
        if not (math.isfinite(loss) and scale.back_off()):
            break
        for p in parameters:
            p.grad = None
    for p in parameters:
        if p.grad is not None:
            p.grad /= scale.value
    return loss, norm


def backward(
    model: ModelPatcher, batch: list[Conditioned], sigma: torch.Tensor, noise: list[torch.Tensor], scale: float = 1.0
) -> torch.Tensor:
    """Add ``scale`` times the gradient of the mean loss of ``batch`` to the parameters; returns that loss, a scalar.

    Each sample has its own sigma, noise and conditioning; those whose shapes agree go through the model together.
    """
    total = torch.zeros((), device=sigma.device)
    for group in forward.groups(batch):
        members, its_sigma = [batch[i] for i in group], torch.stack([sigma[i] for i in group])
        x0_pred = forward.predict_x0(model, members, torch.cat([noise[i] for i in group]), its_sigma)
        x0 = torch.cat([sample.x0 for sample in members])
        weight = sampling.x0_error_weight(model.model.model_sampling, its_sigma)
        loss = objective.sample_losses(x0_pred, x0, weight).sum() / len(batch)
        (loss * scale).backward()
        total += loss.detach()
    return total


def shuffled(n: int, seed: int) -> Iterator[int]:
    """Indices below ``n`` without end: every epoch all of them, in a new order."""
    rng = random.Random(seed)
    while True:
        yield from rng.sample(range(n), n)
