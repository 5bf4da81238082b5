"""How a model is trained in the memory that there is: the cheapest way that fits, found before the first step.

In this order: everything kept for the backward pass; some blocks recomputed, as few as will do; all of them; their inputs
in system memory; and last, weights streamed by ComfyUI, as few as will do.
"""
import logging
from dataclasses import dataclass, replace

import torch

from ..host import compat, memory
from ..host.encode import Encoded
from ..host.layers import blocks
from ..host.recompute import NOTHING, Recompute
from ..lora.inject import trainable
from .simulate import Counted, Simulation

SLACK = 1.15  # of what a step takes, that torch's allocator holds beside it
SIZES = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25)  # of the side: what is tried where nothing fits


class DoesNotFit(ValueError):
    """Training takes more memory than there is, in whatever way; the message says what fits."""


@dataclass(frozen=True)
class Plan:
    """What is recomputed of a model of so many ``blocks``, and what that takes in bytes.

    ``counted`` is None for a model that cannot be counted. ``needed`` is beside the ``weights`` on the device, of which
    ``streamed`` find no place; ``room`` is what there is for both. ``measured`` is the peak of a first step.
    """

    how: Recompute
    blocks: int
    counted: Counted | None
    needed: int
    weights: int
    room: int
    streamed: int = 0
    measured: int | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether only a first step will tell what it takes."""
        return self.counted is None and self.measured is None

    def harder(self, device: torch.device) -> "Plan | None":
        """What to try when this has run out of memory all the same; None when nothing is left."""
        if self.how.blocks < self.blocks:
            return replace(self, how=Recompute(min(self.blocks, self.how.blocks + max(1, self.blocks // 4))))
        if device.type == "cpu":
            return None
        if not self.how.inputs_away:
            return replace(self, how=Recompute(self.blocks, inputs_away=True))
        more = self.needed // 2  # for which ComfyUI streams more of the weights
        if self.streamed + more >= self.weights:
            return None
        return replace(self, needed=self.needed + more, streamed=self.streamed + more)

    @property
    def words(self) -> str:
        """What is done, without the numbers."""
        again, n = self.how.blocks, self.blocks
        words = [f"{f'{again} of' if again < n else 'all'} {n} blocks recomputed" if again else "nothing recomputed"]
        if self.how.inputs_away:
            words.append("their inputs in system memory")
        if self.streamed:
            words.append(f"{gigabytes(self.streamed)} of {gigabytes(self.weights)} of weights streamed")
        return ", ".join(words)

    def __str__(self) -> str:
        if self.counted:
            return f"{self.words}; {gigabytes(self.weights - self.streamed + self.counted.total)} counted, {gigabytes(self.room)} free"
        measured = self.measured and f"the first step took {gigabytes(self.measured)} beside the weights"
        return f"{self.words}; {measured or 'not counted'}"


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def choose(model, sample: Encoded, batch_size: int, rank: int) -> Plan:
    """The cheapest plan that fits, for the sample that takes most memory; only its shapes matter.

    Raises:
        DoesNotFit: none does.
    """
    device, room = model.load_device, memory.room(model)
    weights = 0 if device.type == "cpu" else model.model_size()  # there they lie in the same memory already
    try:
        return cheapest(Simulation(model, sample, batch_size, rank, device), weights, room, device)
    except DoesNotFit as error:
        raise DoesNotFit(f"{error}{_nearest(model, sample, batch_size, rank, weights, room)}") from None
    except Exception:  # not every model runs without its weights
        logging.debug("PairLoRA: a step of %s cannot be counted", type(model.model).__name__, exc_info=True)
        n, trained = len(blocks(model.model.diffusion_model)), trainable(model.model.diffusion_model, rank)
        return Plan(Recompute(n), n, None, memory.guess(model, sample, batch_size) + 16 * trained, weights, room)


def cheapest(simulation: Simulation, weights: int, room: int, device: torch.device) -> Plan:
    """As ``choose``, for a ``device`` that may be another than the model's."""

    def fits(plan: Plan) -> bool:
        return plan.weights - plan.streamed + plan.needed <= room

    n = simulation.blocks
    if fits(found := _plan(simulation, NOTHING, weights, room)):
        return found
    if fits(found := _plan(simulation, Recompute(n), weights, room)):
        return next(found for k in range(1, n + 1) if fits(found := _plan(simulation, Recompute(k), weights, room)))
    if device.type != "cpu":
        least = _least(simulation, device)
        if fits(found := _plan(simulation, least, weights, room)):
            return found
        if fits(found := _plan(simulation, least, weights, room, streams=True)):
            return found
    raise DoesNotFit(
        f"A step takes {gigabytes(found.needed)} of memory beside the model's weights, and {gigabytes(room)} are free."
    )


def _plan(simulation: Simulation, how: Recompute, weights: int, room: int, streams: bool = False) -> Plan:
    counted = simulation.count(how, streams)
    needed = counted.adapter + counted.optimizer + int(SLACK * counted.peak)
    streamed = min(weights, max(0, weights + needed - room)) if streams else 0
    return Plan(how, simulation.blocks, counted, needed, weights, room, streamed)


def _least(simulation: Simulation, device: torch.device) -> Recompute:
    """What takes least of the device's memory, as far as there is system memory for it."""
    n = simulation.blocks
    if device.type == "cpu":
        return Recompute(n)
    leaving = simulation.count(Recompute(n)).kept - simulation.count(Recompute(n, inputs_away=True)).kept
    return Recompute(n, inputs_away=leaving < memory.system_room())


def _nearest(model, sample: Encoded, batch_size: int, rank: int, weights: int, room: int) -> str:
    """What to say of the settings that fit."""
    device = model.load_device

    def fits(sample: Encoded, batch_size: int) -> bool:
        simulation, streams = Simulation(model, sample, batch_size, rank, device), device.type != "cpu"
        return _plan(simulation, _least(simulation, device), weights, room, streams).needed <= room

    side, found = compat.pixels(model.model, sample.latent), []
    halves = (batch_size >> i for i in range(1, batch_size.bit_length()))
    if n := next((n for n in halves if fits(sample, n)), None):
        found.append(f"a batch_size of {n}")
    if smaller := next((size for size in SIZES if fits(sample.resized(size), batch_size)), None):
        found.append(f"a resolution of {round(smaller * side / 64) * 64} in place of {side}")
    return f" What fits is {' or '.join(found)}." if found else " No smaller resolution fits."
