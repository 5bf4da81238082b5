"""What a step of training takes, counted by the very code that trains on a model without weights: each kind of block is
run a few times, and a step of the whole model put together from that, for every choice of what is recomputed."""
import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ..host import compat, forward
from ..host.autograd import exact_gradients
from ..host.encode import Encoded, copied
from ..host.layers import alike, blocks, replaced_forwards
from ..host.recompute import EVERYTHING, NOTHING, Recompute
from ..host.twin import META, Twin, twin
from ..lora.inject import ALL, Layers, LoraLayers
from ..step import backward
from .kernels import of_device
from .ledger import Ledger, Phase

KNOWN = 64  # models and shapes that are remembered
FEW = 4  # blocks of a list that are run: the first two, one like all that follow, and the last


@dataclass(frozen=True)
class Counted:
    """Bytes beside the base's weights: of the ``adapter``, of the ``optimizer``'s moments, ``kept`` for the backward pass
    when it begins, and the ``peak`` of all but the first two; and of one step the bytes ``moved`` through the device's
    memory, those ``fetched`` from system memory, and the ``flops``, matrix products and attention in floating point."""

    adapter: int
    optimizer: int
    kept: int
    peak: int
    moved: int
    fetched: int
    flops: int

    @property
    def total(self) -> int:
        return self.adapter + self.optimizer + self.peak


@dataclass(frozen=True)
class Block:
    """What a block takes that is treated in one way: bytes of what it ``keeps`` and of its LoRA's gradient, by how much the
    peaks of its forward and backward pass rise above what is there at their beginning, and its two phases."""

    keeps: int
    gradient: int
    rise: int
    backward_rise: int
    phases: tuple[Phase, Phase]


@dataclass(frozen=True)
class Seen:
    """A step with all blocks that were run treated in one way; ``around`` are the phases before, between and after both
    passes through them."""

    blocks: list[Block]
    before: int  # bytes alive when the first block begins
    around: dict[str, Phase]
    adapter: int
    optimizer: int


known: OrderedDict[tuple, dict[tuple, Seen]] = OrderedDict()


class Simulation:
    """What a step on samples of these shapes takes, for every way to keep, recompute or divide."""

    def __init__(
        self, model, sample: Encoded, batch_size: int, rank: int, device: torch.device, accumulation: int = 1,
        layers: Layers = ALL,
    ):  # fmt: skip
        """Only the shapes of ``sample`` matter. ``device`` is the one that will train. Of ``layers`` the pattern is left out,
        which may choose some blocks only: what is counted is never too little.

        Raises whatever the model raises that cannot be run without its weights.
        """
        self.model, self.rank, self.layers, self.device = model, rank, Layers(layers.which), device
        self.diffusion_model = getattr(model.model.diffusion_model, "_orig_mod", model.model.diffusion_model)
        conditioned = forward.condition(model, sample)
        alone = len(forward.groups([conditioned] * 2)) == 2
        self.batch, self.at_once = batch_size * accumulation, 1 if alone else batch_size
        self.name, self.x0 = conditioned.name, copied(conditioned.x0, META)
        self.conds = {name: (type(c), copied(c.cond, META)) for name, c in conditioned.conds.items()}
        self.lists = alike(self.diffusion_model)
        self.depths = {of: min(len(of), FEW) for of, are_alike in self.lists.items() if are_alike}
        self.blocks = len(blocks(self.diffusion_model))
        self._seen = known.setdefault(key := self._key(conditioned), {})
        known.move_to_end(key)
        if len(known) > KNOWN:
            known.popitem(last=False)

    def _key(self, conditioned: forward.Conditioned) -> tuple:
        """All that the numbers depend on."""
        weights = tuple((p.shape, p.dtype) for p in self.diffusion_model.parameters())
        dtype = compat.compute_dtype(self.model.model)
        shapes = conditioned.signature(), self.batch, self.rank, self.layers
        return type(self.diffusion_model), hash(weights), dtype, shapes, self.device

    def count(self, how: Recompute, streamed: bool = False, at_once: int | None = None) -> Counted:
        """Put together from blocks that keep everything and blocks that keep their inputs."""
        at_once = at_once or self.at_once
        again = self.seen(Recompute(EVERYTHING.blocks, how.inputs_away), streamed, at_once) if how.blocks else None
        kept = self.seen(NOTHING, streamed, at_once) if how.blocks < self.blocks else again
        again = again or kept
        first, in_parts = min(how.blocks, self.blocks), at_once < self.batch
        whole = [(again if i < first else kept).blocks[j] for i, j in enumerate(self._places())]

        live = peak = kept.before
        for block in whole:
            peak, live = max(peak, live + block.rise), live + block.keeps
        at_most = live
        end = kept.before + sum(block.keeps for block in kept.blocks)  # where it was in the step that was seen
        peak = max(peak, live + kept.around["loss"].peak - end)
        for block in reversed(whole):
            peak, live = max(peak, live + block.backward_rise), live - block.keeps + (not in_parts) * block.gradient
        adapter = sum(block.gradient for block in whole)
        scale = adapter / kept.adapter
        peak = max(peak, kept.around["before"].peak, int(kept.around["optimizer"].peak * scale)) + in_parts * adapter
        around, parts = dict(kept.around), -(-self.batch // at_once)
        last, phases = around.pop("optimizer"), [phase for block in whole for phase in block.phases] + list(around.values())
        sums = {
            name: parts * sum(getattr(phase, name) for phase in phases) + getattr(last, name)
            for name in ("moved", "fetched", "flops")
        }
        return Counted(adapter, int(kept.optimizer * scale), at_most, peak, **sums)

    def _places(self) -> list[int]:
        """For each block of the model, the one that was run in its place."""
        places, start = [], 0
        for of in self.lists:
            n, few = len(of), self.depths.get(of, len(of))
            middle = [few - 2] * (n - few)
            places += [start + i for i in (*range(few - 1), *middle, few - 1)]
            start += few
        return places or list(range(self.blocks))

    def seen(self, how: Recompute, streamed: bool, at_once: int) -> Seen:
        if (key := (how, streamed, at_once)) not in self._seen:
            self._seen[key] = self._run(twin(self.model, self.depths, streamed), how, at_once)
        return self._seen[key]

    def _conditioned(self) -> forward.Conditioned:
        conds = {name: kind(copied(cond, META)) for name, (kind, cond) in self.conds.items()}
        return forward.Conditioned(self.name, copied(self.x0, META), conds)

    def _run(self, of: Twin, how: Recompute, at_once: int) -> Seen:
        """Of samples that go through the model in parts it is a later one that is run, which finds the LoRA's whole gradient
        there: no other takes more."""
        in_parts = at_once < self.batch
        base, found = of.model, blocks(of.model.diffusion_model)
        with torch.inference_mode(False), torch.device(META):
            lora = LoraLayers(base.diffusion_model, self.rank, 0, META, self.layers)
        ledger, parameters = Ledger("meta"), lora.parameters()
        ledger.there_before([*base.parameters(), *base.buffers(), *parameters])
        with contextlib.ExitStack() as stack:
            stack.enter_context(of_device(self.device, ledger))
            stack.enter_context(lora.attached())
            stack.enter_context(exact_gradients(base, base.diffusion_model, how))
            stack.enter_context(_phases(base.diffusion_model, found, ledger))
            stack.enter_context(ledger)
            optimizer = torch.optim.AdamW(parameters, foreach=False)  # one by one it needs as little room as fused
            for p in parameters:
                p.grad = torch.zeros_like(p)
            optimizer.step()
            optimizer.zero_grad()
            moments = ledger.live
            if in_parts:
                for p in parameters:
                    p.grad = torch.zeros_like(p)
            del p
            there = ledger.live
            ledger.phases.clear()
            ledger.enter("before")
            samples = [self._conditioned() for _ in range(self.batch)]
            noise, sigma = [torch.empty_like(sample.x0) for sample in samples], torch.ones(self.batch, device=META)
            backward(of, samples[:at_once], sigma[:at_once], noise[:at_once])
            del samples, noise, sigma
            ledger.enter("optimizer")
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        paths = {module: path for path, module in lora.modules.items()}
        gradients = [
            sum(p.nbytes for m in block.modules() if m in paths for p in lora.layers[paths[m]].parameters() if p.requires_grad)
            for block in found
        ]
        adapter = sum(p.nbytes for p in parameters)
        return _seen(ledger.phases, gradients, adapter, moments, there, in_parts)


@contextlib.contextmanager
def _phases(model: torch.nn.Module, found: list[torch.nn.Module], ledger: Ledger) -> Iterator[None]:
    """Tell the ledger when each block is computed, and when the backward pass comes to it."""

    def announced(forward, i: int):
        def run(*args, **kwargs):
            ledger.enter(("forward", i))
            result = forward(*args, **kwargs)
            for t in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(t, torch.Tensor) and t.requires_grad:
                    t.register_hook(lambda _: ledger.enter(("backward", i)))
            return result

        return run

    def whole(*args, **kwargs):
        result = its_own(*args, **kwargs)
        ledger.enter("loss")
        return result

    its_own, forwards = model.forward, {block: announced(block.forward, i) for i, block in enumerate(found)}
    with replaced_forwards({model: whole, **forwards}):
        yield


def _seen(phases: dict, gradients: list[int], adapter: int, moments: int, there: int, in_parts: bool) -> Seen:
    """From the ``phases`` of a step that began with so many bytes ``there``: moments and, if ``in_parts``, gradients."""
    begun, found = [phases["loss"].begun], []
    for i in reversed(range(len(gradients))):  # one that has not been run, as some have no part in this step, takes nothing
        begun.insert(0, phases["forward", i].begun if ("forward", i) in phases else begun[0])
    for i, gradient in enumerate(gradients):
        forward_, backward_ = (phases.get((name, i)) or Phase(begun[i], 0) for name in ("forward", "backward"))
        at_backward = begun[i + 1] + (not in_parts) * sum(gradients[i + 1 :])
        rises = forward_.peak - begun[i], backward_.peak - at_backward
        found.append(Block(begun[i + 1] - begun[i], gradient, *rises, (forward_, backward_)))
    around = {
        name: replace(phase, begun=phase.begun - there, peak=phase.peak - there)
        for name, phase in phases.items() if isinstance(name, str)
    }  # fmt: skip
    return Seen(found, begun[0] - there, around, adapter, moments)
