"""What each block of a model keeps for the backward pass: all of it, or only its inputs, to be computed again.

Gradient checkpointing (https://arxiv.org/abs/1604.06174), for as many blocks as the memory asks for.
"""
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from .layers import blocks, replaced_forwards


@dataclass(frozen=True)
class Recompute:
    """The first ``blocks`` of a model are computed again in the backward pass, which comes to them last, when what the
    others have kept is gone. Their inputs wait for it on the device or, if ``inputs_away``, in system memory."""

    blocks: int = 0
    inputs_away: bool = False


NOTHING, EVERYTHING = Recompute(), Recompute(1_000_000)

weights: dict[torch.nn.Module, tuple] = {}  # what Linears have fetched, from a block's second computation to its backward
_now = threading.local()  # the backward pass of a device has a thread of its own


@contextlib.contextmanager
def _recomputing() -> Iterator[None]:
    weights.clear()  # of a block behind this one, which has had its backward pass
    _now.recomputing = True
    try:
        yield
    finally:
        _now.recomputing = False


@contextlib.contextmanager
def weight_wanted(module: torch.nn.Module) -> Iterator[None]:
    """What ``module`` fetches in here its backward pass will use, if it follows at once."""
    _now.module = module if getattr(_now, "recomputing", False) else None
    try:
        yield
    finally:
        _now.module = None


def is_wanted(module: torch.nn.Module) -> bool:
    return getattr(_now, "module", None) is module


@contextlib.contextmanager
def recomputed(model: torch.nn.Module, how: Recompute) -> Iterator[None]:
    """Blocks of ``model`` keep for the backward pass what ``how`` says, while this is open."""
    last: list[Away] = []  # the inputs that left last

    def recomputing(forward, first: bool):
        def run(*args, **kwargs):
            # One shared dict goes through all blocks and is updated between them: recompute with what was seen now.
            seen = {key: dict(value) if isinstance(value, dict) else value for key, value in kwargs.items()}
            if first:
                last.clear()
            call = forward
            if how.inputs_away:
                call, args, seen = _from_system_memory(forward, last, args, seen), (), {}
            elif any(isinstance(v, torch.Tensor) and v.is_meta for v in (*args, *seen.values())):
                call, args, seen = partial(forward, *args, **seen), (), {}  # older torch looks for the module torch.meta
            return checkpoint(call, *args, **OPTIONS, **seen)

        return run

    of_blocks = {block: recomputing(block.forward, i == 0) for i, block in enumerate(blocks(model)[: how.blocks])}
    try:
        with replaced_forwards(of_blocks):
            yield
    finally:
        weights.clear()


def _contexts():
    return contextlib.nullcontext(), _recomputing()


# Nothing is drawn at random in a block: what would is left out or refused, see patches.py.
OPTIONS = {"use_reentrant": False, "preserve_rng_state": False, "context_fn": _contexts}


def _from_system_memory(forward, last: list["Away"], args: tuple, kwargs: dict):
    """``forward`` on these arguments, to be called twice: the second time with those that have a gradient brought back.
    The others, such as positions and timesteps, are shared by all blocks and stay where they are."""
    values, positional, names = [*args, *kwargs.values()], len(args), list(kwargs)
    leaving = [i for i, value in enumerate(values) if isinstance(value, torch.Tensor) and value.requires_grad]
    away = Away([values[i] for i in leaving], last.pop() if last else None)
    last.append(away)
    first = [values]
    staying = [None if i in leaving else value for i, value in enumerate(values)]
    del args, kwargs, values  # nothing here holds what has left

    def run():
        if first:
            values = first.pop()
        else:
            values = list(staying)
            for i, t in zip(leaving, away.back()):
                values[i] = t.requires_grad_()
        return forward(*values[:positional], **dict(zip(names, values[positional:])))

    return run


class Away:
    """What a block was given, in system memory: pinned, and copied beside the device's work where it has streams.

    ``before`` has left before it and is needed after it, so that it is sent for once this has been.
    """

    def __init__(self, tensors: list[torch.Tensor], before: "Away | None"):
        self.before, self.devices, self.coming = before, [t.device for t in tensors], None
        with _beside(self.devices) as stream:
            self.kept = [_in_system_memory(t.detach()) for t in tensors]
            for t in tensors if stream else ():
                t.record_stream(stream)  # its memory goes to others only once it has left

    def back(self) -> list[torch.Tensor]:
        coming, arrived = self._sent_for()
        if self.before:
            self.before._sent_for()
        self.before = self.coming = None
        if arrived:
            torch.cuda.current_stream().wait_event(arrived)
            for t in coming:
                t.record_stream(torch.cuda.current_stream())
        return coming

    def _sent_for(self) -> tuple[list[torch.Tensor], "torch.cuda.Event | None"]:
        if self.coming is None:
            with _beside(self.devices) as stream:
                coming = [torch.empty_like(t, device=d).copy_(t, non_blocking=True) for t, d in zip(self.kept, self.devices)]
                self.coming = coming, stream and stream.record_event()
        return self.coming


_streams: dict[torch.device, "torch.cuda.Stream"] = {}


@contextlib.contextmanager
def _beside(devices: list[torch.device]) -> Iterator["torch.cuda.Stream | None"]:
    """What a CUDA device is given in here it does beside its work, once it has done what it was given before."""
    device = devices[0] if devices else None
    if device is None or device.type != "cuda":
        yield None
        return
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)
    _streams[device].wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(_streams[device]):
        yield _streams[device]


def _in_system_memory(t: torch.Tensor) -> torch.Tensor:
    if t.is_meta:  # without storage there, none here
        return torch.zeros((), dtype=t.dtype).expand(t.shape)
    return torch.empty_like(t, device="cpu", pin_memory=t.is_cuda).copy_(t, non_blocking=True)
