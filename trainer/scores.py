"""How well a LoRA does on samples that it is not trained on."""
import math
from collections.abc import Sequence

import torch

from . import objective
from .host import forward, memory, sampling
from .host.encode import Encoded
from .host.forward import ModelPatcher

SIGMAS = 4  # of each sample
SHARE = 0.03  # of the time of training, that scores take
LOOKED = 32  # samples, to see whether their pictures differ
PASSES = 2  # forward passes that take as long as a sample of a step, or less


def held_out_loss(model: ModelPatcher, samples: Sequence[Encoded], timesteps: str) -> float:
    """The mean loss of ``samples`` on a loaded model, each for the same noise and the same sigmas every time, so that it
    changes by what the LoRA does only. The sigmas are the middles of equal parts of what ``timesteps`` draws."""
    u, total = (torch.arange(SIGMAS) + 0.5) / SIGMAS, 0.0
    with torch.inference_mode():
        for i, sample in enumerate(samples):
            conditioned = forward.condition(model, sample)
            x0, generator = conditioned.x0, torch.Generator().manual_seed(i)
            for sigma in sampling.sigmas(model, [conditioned] * SIGMAS, u, timesteps).to(x0.device).split(1):
                memory.check_interrupted()
                noise = torch.randn(x0.shape, generator=generator).to(x0)
                predicted = forward.predict_x0(model, [conditioned], noise, sigma)
                weight = sampling.x0_error_weight(model.model.model_sampling, sigma)
                total += objective.sample_losses(predicted, x0, weight).item()
    return total / (SIGMAS * len(samples))


def alike(samples: Sequence[Encoded]) -> float:
    """How many of the first samples, from 0 to 1, have a target that equals their reference."""
    looked = [samples[i] for i in range(min(LOOKED, len(samples)))]
    same = [any(r.shape == s.latent.shape and torch.equal(r, s.latent) for r in s.references) for s in looked]
    return sum(same) / len(same)


def interval(samples: int, batch_size: int) -> int:
    """Steps between two scores of so many samples. A number of steps, not of seconds, since another training of the same
    run has to find the same step best."""
    return max(10, math.ceil(SIGMAS * samples / PASSES / SHARE / batch_size))
