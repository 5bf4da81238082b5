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

    def with_measured(self, peak: int) -> "Plan":
        return replace(self, measured=peak)

    def harder(self, device: torch.device) -> "Plan | None":
        """What to try when this has run out of memory all the same; None when nothing is left."""
        if self.how.blocks < self.blocks:
            return replace(self, how=Recompute(min(self.blocks, self.how.blocks + max(1, self.blocks // 4))))
        if device.type == "cpu":
            return None
        if not self.how.inputs_away:
            return replace(self, how=Recompute(self.blocks, inputs_away=True))
        more = self.needed // 2  # for which ComfyUI streams more of the weights
        return replace(self, needed=self.needed + more, streamed=self.streamed + more) if self.streamed + more < self.weights else None

    @property
    def words(self) -> str:
        """What is done, without the numbers."""
        again, n = self.how.blocks, self.blocks
        words = "nothing recomputed" if not again else f"{again} of {n} blocks recomputed" if again < n else f"all {n} blocks recomputed"
        words += ", their inputs in system memory" if self.how.inputs_away else ""
        words += f", {gigabytes(self.streamed)} of {gigabytes(self.weights)} of weights streamed" if self.streamed else ""
        return words

    def __str__(self) -> str:
        if self.counted:
            return f"{self.words}; {gigabytes(self.weights - self.streamed + self.counted.total)} counted, {gigabytes(self.room)} free"
        known = "not counted" if self.measured is None else f"the first step took {gigabytes(self.measured)} beside the weights"
        return f"{self.words}; {known}"


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


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
    n = simulation.blocks

    def plan(how: Recompute, streams: bool = False) -> Plan:
        counted = simulation.count(how, streams)
        needed = counted.adapter + counted.optimizer + int(SLACK * counted.peak)
        return Plan(how, n, counted, needed, weights, room, max(0, weights + needed - room) if streams else 0)

    def fits(plan: Plan) -> bool:
        return plan.weights - plan.streamed + plan.needed <= room

    if fits(found := plan(NOTHING)):
        return found
    if fits(found := plan(Recompute(n))):
        return next(found for k in range(1, n + 1) if fits(found := plan(Recompute(k))))
    if device.type != "cpu":
        leaving = found.counted.kept - plan(Recompute(n, inputs_away=True)).counted.kept
        how = Recompute(n, inputs_away=leaving < memory.system_room())
        if fits(found := plan(how)) or (found := plan(how, streams=True)).needed <= room:
            return found
    raise DoesNotFit(f"A step takes {gigabytes(found.needed)} of memory beside the model's weights, and {gigabytes(room)} are free.")


def _nearest(model, sample: Encoded, batch_size: int, rank: int, weights: int, room: int) -> str:
    """What to say of the settings that fit."""

    def fits(sample: Encoded, batch_size: int) -> bool:
        try:
            return bool(cheapest(Simulation(model, sample, batch_size, rank, model.load_device), weights, room, model.load_device))
        except DoesNotFit:
            return False

    side, found = compat.pixels(model.model, sample.latent), []
    if batch_size > 1 and (n := next((n for n in range(batch_size - 1, 0, -1) if fits(sample, n)), None)):
        found.append(f"a batch_size of {n}")
    if smaller := next((size for size in SIZES if fits(sample.resized(size), batch_size)), None):
        found.append(f"a resolution of {round(smaller * side / 64) * 64} in place of {side}")
    return f" What fits is {' or '.join(found)}." if found else " No smaller resolution fits."
