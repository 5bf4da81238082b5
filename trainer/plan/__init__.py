"""How a model is trained in the memory that there is: the cheapest way that fits, found before the first step.

In this order: everything kept for the backward pass; some blocks recomputed, as few as will do; all of them; the samples
of a step in parts, as large as will do; the blocks' inputs in system memory; and last, weights streamed by ComfyUI, as few
as will do. Recomputing gives the same to the last bit, and parts the same to rounding.
"""
import logging
from dataclasses import dataclass, replace

import torch

from ..host import compat, memory
from ..host.encode import Encoded
from ..host.layers import blocks
from ..host.recompute import NOTHING, Recompute
from ..lora.inject import ALL, Layers, trainable
from .simulate import Counted, Simulation

SLACK = 1.15  # of what a step takes, that torch's allocator holds beside it
SIZES = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25)  # of the side: what is tried where nothing fits


class DoesNotFit(ValueError):
    """Training takes more memory than there is, in whatever way; the message says what fits."""


@dataclass(frozen=True)
class Plan:
    """What is recomputed of a model of so many ``blocks``, how many of a step's ``batch`` of samples go through it
    ``at_once``, and what that takes in bytes.

    ``counted`` is None for a model that cannot be counted, and for a way that was taken when memory ran out. ``needed`` is
    beside the ``weights`` on the device, of which ``streamed`` find no place; ``room`` is what there is for both.
    ``measured`` is the peak of a first step.
    """

    how: Recompute
    blocks: int
    counted: Counted | None
    needed: int
    weights: int
    room: int
    streamed: int = 0
    measured: int | None = None
    batch: int = 1
    at_once: int = 1

    @property
    def is_unknown(self) -> bool:
        """Whether only a first step will tell what it takes."""
        return self.counted is None and self.measured is None

    def harder(self, device: torch.device) -> "Plan | None":
        """What to try when this has run out of memory all the same, of which only a step will tell what it takes; None
        when nothing is left."""
        unknown = replace(self, counted=None, measured=None)
        if self.how.blocks < self.blocks:
            return replace(unknown, how=Recompute(min(self.blocks, self.how.blocks + max(1, self.blocks // 4))))
        if self.at_once > 1:
            return replace(unknown, at_once=self.at_once // 2)
        if device.type == "cpu":
            return None
        if not self.how.inputs_away:
            return replace(unknown, how=Recompute(self.blocks, inputs_away=True))
        more = min(self.needed // 2, self.weights - self.streamed)  # of the weights, which ComfyUI then streams
        return replace(unknown, needed=self.needed + more, streamed=self.streamed + more) if more else None

    @property
    def words(self) -> str:
        """What is done, without the numbers."""
        again, n = self.how.blocks, self.blocks
        words = [f"{f'{again} of' if again < n else 'all'} {n} blocks recomputed" if again else "nothing recomputed"]
        if self.how.inputs_away:
            words.append("their inputs in system memory")
        if self.at_once < self.batch:
            words.append(f"{self.at_once} of {self.batch} samples at a time")
        if self.streamed:
            words.append(f"{gigabytes(self.streamed)} of {gigabytes(self.weights)} of weights streamed")
        return ", ".join(words)

    def __str__(self) -> str:
        if self.counted:
            return f"{self.words}; {gigabytes(self.weights - self.streamed + self.counted.total)} counted, {gigabytes(self.room)} free"
        measured = self.measured and f"the first such step took {gigabytes(self.measured)} beside the weights"
        return f"{self.words}; {measured or 'not counted'}"


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def choose(model, sample: Encoded, batch_size: int, rank: int, accumulation: int = 1, layers: Layers = ALL) -> Plan:
    """The cheapest plan that fits, for the sample that takes most memory; only its shapes matter.

    Raises:
        DoesNotFit: none does.
    """
    device, room = model.load_device, memory.room(model)
    weights = 0 if device.type == "cpu" else model.model_size()  # there they lie in the same memory already
    try:
        return cheapest(Simulation(model, sample, batch_size, rank, device, accumulation, layers), weights, room, device)
    except DoesNotFit as error:
        raise DoesNotFit(f"{error}{_nearest(model, sample, batch_size * accumulation, rank, layers, weights, room)}") from None
    except Exception:  # not every model runs without its weights
        logging.debug("PairLoRA: a step of %s cannot be counted", type(model.model).__name__, exc_info=True)
        n, trained = len(blocks(model.model.diffusion_model)), trainable(model.model.diffusion_model, rank, layers)
        needed = memory.guess(model, sample, batch_size) + 16 * trained
        return Plan(Recompute(n), n, None, needed, weights, room, batch=batch_size * accumulation, at_once=batch_size)


def cheapest(simulation: Simulation, weights: int, room: int, device: torch.device) -> Plan:
    """As ``choose``, for a ``device`` that may be another than the model's."""

    def plan(how: Recompute, at_once: int, streams: bool = False) -> Plan:
        return _plan(simulation, how, at_once, weights, room, streams)

    def fits(plan: Plan) -> bool:
        return plan.weights - plan.streamed + plan.needed <= room

    n, most = simulation.blocks, simulation.at_once
    parts = [most >> i for i in range(most.bit_length())]
    if fits(found := plan(NOTHING, most)):
        return found
    for part in parts:
        if fits(found := plan(Recompute(n), part)):
            return next(found for k in range(n + 1) if fits(found := plan(Recompute(k), part)))
    if device.type != "cpu":
        least = {part: _least(simulation, part, device) for part in parts}
        for streams in (False, True):
            ways = [found := plan(least[part], part, streams) for part in parts]
            if fitting := [way for way in ways if fits(way)]:
                return min(fitting, key=lambda way: way.streamed / way.at_once)  # bytes fetched for a sample
    raise DoesNotFit(
        f"A step takes {gigabytes(found.needed)} of memory beside the model's weights, and {gigabytes(room)} are free."
    )


def _plan(simulation: Simulation, how: Recompute, at_once: int, weights: int, room: int, streams: bool = False) -> Plan:
    counted = simulation.count(how, streams, at_once)
    needed = counted.adapter + counted.optimizer + int(SLACK * counted.peak)
    streamed = min(weights, max(0, weights + needed - room)) if streams else 0
    return Plan(
        how, simulation.blocks, counted, needed, weights, room, streamed, batch=simulation.batch, at_once=at_once
    )  # fmt: skip


def _least(simulation: Simulation, at_once: int, device: torch.device) -> Recompute:
    """What takes least of the device's memory, as far as there is system memory for it."""
    n = simulation.blocks
    if device.type == "cpu":
        return Recompute(n)
    kept = [simulation.count(Recompute(n, away), at_once=at_once).kept for away in (False, True)]
    return Recompute(n, inputs_away=kept[0] - kept[1] < memory.system_room())


def _nearest(model, sample: Encoded, batch: int, rank: int, layers: Layers, weights: int, room: int) -> str:
    """What to say of the resolutions that fit."""
    device = model.load_device

    def fits(sample: Encoded) -> bool:
        simulation, streams = Simulation(model, sample, 1, rank, device, batch, layers), device.type != "cpu"
        return _plan(simulation, _least(simulation, 1, device), 1, weights, room, streams).needed <= room

    side = compat.pixels(model.model, sample.latent)
    if smaller := next((size for size in SIZES if fits(sample.resized(size))), None):
        return f" What fits is a resolution of {round(smaller * side / 64) * 64} in place of {side}."
    return " No smaller resolution fits."
