"""The training loop."""
import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from . import objective
from .host import forward, memory, sampling
from .host.autograd import exact_gradients
from .host.encode import Encoded
from .host.forward import Conditioned, ModelPatcher
from .lora.inject import LoraLayers


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
) -> dict[str, torch.Tensor]:
    """Train a LoRA on the very module that ``model`` holds, and leave that as it was.

    ``on_step(step, loss)`` is called after every update of the optimizer; what it raises ends the training.
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
    plain = forward.trial(model, largest)

    with contextlib.ExitStack() as stack:
        stack.enter_context(lora.attached())
        stack.enter_context(exact_gradients(base, base.diffusion_model, checkpointing))
        forward.check_unchanged(plain, forward.prediction(model, largest))
        optimizer = torch.optim.AdamW(lora.parameters(), learning_rate)  # https://arxiv.org/abs/1711.05101
        generator = torch.Generator().manual_seed(settings.seed)  # on the CPU: the same noise on every device
        order = shuffled(len(samples), settings.seed)
        for step in range(1, steps + 1):
            batch = [forward.condition(model, samples[next(order)]) for _ in range(settings.batch_size)]
            loss = backward(model, batch, *draw(model, batch, settings.timesteps, generator))
            torch.nn.utils.clip_grad_norm_(lora.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"The loss became {loss.item()} at step {step}. Lower the learning rate ({learning_rate:g})."
                )
            on_step(step, loss.item())
        return lora.state_dict()


def draw(
    model: ModelPatcher, batch: list[Conditioned], timesteps: str, generator: torch.Generator
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A sigma (n,) and noise, n tensors shaped like the latents, for each sample of the batch."""
    sigma = sampling.sigmas(model, batch, objective.stratified(len(batch), generator), timesteps)
    noise = [torch.randn(sample.x0.shape, generator=generator).to(sample.x0) for sample in batch]
    return sigma.to(batch[0].x0.device), noise


def backward(
    model: ModelPatcher, batch: list[Conditioned], sigma: torch.Tensor, noise: list[torch.Tensor]
) -> torch.Tensor:
    """Add the gradient of the mean loss of ``batch`` to the parameters; returns that loss, a scalar.

    Each sample has its own sigma, noise and conditioning; those whose shapes agree go through the model together.
    """
    total = torch.zeros((), device=sigma.device)
    for group in forward.groups(batch):
        members, its_sigma = [batch[i] for i in group], torch.stack([sigma[i] for i in group])
        x0_pred = forward.predict_x0(model, members, torch.cat([noise[i] for i in group]), its_sigma)
        x0 = torch.cat([sample.x0 for sample in members])
        weight = sampling.x0_error_weight(model.model.model_sampling, its_sigma)
        loss = objective.sample_losses(x0_pred, x0, weight).sum() / len(batch)
        loss.backward()
        total += loss.detach()
    return total


def shuffled(n: int, seed: int) -> Iterator[int]:
    """Indices below ``n`` without end: every epoch all of them, in a new order."""
    rng = random.Random(seed)
    while True:
        yield from rng.sample(range(n), n)
