"""The training loop."""
import contextlib
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from .host import compat, forward, memory
from .host.autograd import exact_gradients
from .host.encode import Encoded
from .host.forward import ModelPatcher
from .lora.inject import Layers
from .plan import choose
from .plan.ledger import Ledger
from .state import State
from .step import draw, gradient
from .watch import Watch


@dataclass(frozen=True)
class Settings:
    """Everything beyond steps and learning rate."""

    rank: int = 16
    batch_size: int = 1
    seed: int = 0
    timesteps: str = "family default"  # see sampling.sigmas
    save_as: str = "float32"  # see lora.files.DTYPES
    accumulation: int = 1  # batches of a step, one after the other
    warmup: int = 20  # steps in which the learning rate rises to its height
    cooldown: int = 0  # percent of the steps, at the end, in which it falls to zero
    hold_out: str = "a tenth"  # of the pairs, from 12 on, where none are given; or "none"
    hand_on: str = "best"  # on held-out pairs, or "last"
    previews: int = 3  # rounds of pictures of held-out pairs
    checkpoint_steps: int = 250
    checkpoint_minutes: int = 10
    bias: str = "balanced"  # see sampling.BIASES
    loss: str = "squared"  # or "huber", "min-snr"
    layers: str = "all"  # see lora.inject.CHOICES
    layer_pattern: str = ""  # of these only those whose path has this regular expression

    @property
    def samples(self) -> int:
        """Of one step."""
        return self.batch_size * self.accumulation

    @property
    def trained(self) -> Layers:
        return Layers(self.layers, self.layer_pattern)

    def of_training(self) -> dict[str, int | str]:
        """What a run is known by: nothing that the training itself does not depend on, and no setting that is off, so
        that runs of older versions are known still."""
        off = {"accumulation": 1, "warmup": 0, "bias": "balanced", "loss": "squared", "layers": "all", "layer_pattern": ""}
        known = ("rank", "batch_size", "seed", "timesteps", *off)
        return {name: value for name, value in asdict(self).items() if name in known and value != off.get(name)}

    def cooling(self, steps: int) -> int:
        """How many of the last of so many steps are cooled down."""
        return steps * self.cooldown // 100


def train(
    model: ModelPatcher, samples: Sequence[Encoded], settings: Settings, steps: int, learning_rate: float,
    watch: Watch | None = None, plan=None, state: State | None = None,
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Train a LoRA on the very module that ``model`` holds, and leave that as it was.

    It begins with ``state``, by default that of a new LoRA. The memory is used as ``plan`` says or else as is found best,
    and otherwise when a step runs out of it; ``watch`` is told.
    Returns the LoRA as `diffusion_model.PATH.lora_A.weight`, `.lora_B.weight` in float32. On the CPU the same arguments
    give the same tensors, whether in one go or, by ``state``, in several.
    """
    base, device, largest, watch = model.model, model.load_device, largest_of(samples), watch or Watch()
    plan = plan or choose(model, largest, settings.batch_size, settings.rank, settings.accumulation, settings.trained)
    watch.plan(plan)
    state = state or State(model, settings, learning_rate)
    begun = state.step
    order = itertools.islice(shuffled(len(samples), settings.seed), state.step * settings.samples, None)
    chosen, plain = None, None

    while True:
        try:
            memory.load(model, plan.needed)
            with state.lora.attached(model):
                if plain is None:
                    generating, plain = forward.trial(model, largest), forward.trial(model, largest, training=True)
                    if warning := forward.kernels_warning(generating, plain):
                        watch.warning(warning)
                if not watch.between(state) or state.step >= steps:
                    return state.lora.state_dict()
                memory.load(model, plan.needed)  # what lay between may have needed the room
                with exact_gradients(base, base.diffusion_model, plan.how):
                    if state.step == begun:
                        forward.check_unchanged(plain, forward.prediction(model, largest))
                    while state.step < steps:
                        chosen = chosen or list(itertools.islice(order, settings.samples))
                        batch = [forward.condition(model, samples[i]) for i in chosen]
                        state.generator.set_state(state.random)  # which a step that has failed may have drawn from
                        sigma, noise = draw(model, batch, settings.timesteps, state.generator, settings.bias)
                        with Ledger(device.type) if plan.is_unknown else contextlib.nullcontext() as ledger:
                            loss, norm = gradient(
                                model, batch, sigma, noise, plan.at_once, state.parameters, state.scale, settings.loss
                            )  # fmt: skip
                        if not (math.isfinite(loss) and math.isfinite(norm)):
                            raise FloatingPointError(
                                f"At step {state.step + 1} the loss became {loss:g} and its gradient {norm:g}. "
                                + (f"Lower the learning rate ({learning_rate:g})." if state.step else
                                   "Load the model with another weight_dtype, such as bf16.")
                            )  # fmt: skip
                        rate = learning_rate * share(state.step, steps, settings)
                        state.advance(rate)
                        chosen = None
                        if ledger:
                            watch.plan(plan := replace(plan, measured=ledger.peak))
                        if watch.stepped(state, loss, norm, rate):
                            break
            continue
        except Exception as error:
            if not compat.is_out_of_memory(error) or (harder := plan.harder(device)) is None:
                raise
            watch.warning(f"At step {state.step + 1} the memory ran out ({plan}). Trained on with {harder.words}.")
            watch.plan(plan := harder)
        state.optimizer.zero_grad()  # outside of the except, whose error holds what the step has kept
        memory.release(model)


def share(step: int, steps: int, settings: Settings) -> float:
    """Of the learning rate, for the step after ``step``. Rising at first keeps the optimizer, which then knows little of
    the gradients, from large steps (https://arxiv.org/abs/1910.04209); falling to zero at last lets it settle, as
    well as a schedule made for so many steps would (https://arxiv.org/abs/2405.18392)."""
    cooling = settings.cooling(steps)
    rising = (step + 1) / settings.warmup if settings.warmup else 1.0
    falling = (steps - step) / cooling if cooling else 1.0
    return min(1.0, rising, falling)


def largest_of(samples: Sequence[Encoded]) -> Encoded:
    """The sample with the largest latents, references included."""
    return max(samples, key=lambda sample: sample.latent.numel() + sum(t.numel() for t in sample.references))


def shuffled(n: int, seed: int) -> Iterator[int]:
    """Indices below ``n`` without end: every epoch all of them, in a new order."""
    rng = random.Random(seed)
    while True:
        yield from rng.sample(range(n), n)
