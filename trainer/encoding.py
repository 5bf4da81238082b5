"""From a folder of pairs to samples as the model takes them: each encoded once, and kept on disk."""
import hashlib
import math
from collections.abc import Callable, Collection

import numpy as np
import torch

from .data.dataset import PairedDataset
from .data.images import bucket, header
from .data.pairs import DatasetError
from .host import compat, encode, families, forward, memory
from .host.fingerprint import fingerprint
from .host.store import Store, Stored


def encoders_fingerprint(clip, vae) -> list[str]:
    """What text embeddings and latents depend on beside pictures, captions and the nodes."""
    options = clip.layer_idx, sorted(getattr(clip, "tokenizer_options", {}).items())
    return [fingerprint(clip.patcher), repr(options), fingerprint(vae.patcher)]


def caption_warning(clip, dataset: PairedDataset) -> str | None:
    """What to say of captions that the text encoder cannot read in one go."""
    longest = max(dataset.samples, key=lambda sample: len(dataset.caption(sample)))
    split = encode.split_caption(clip, dataset.caption(longest))
    return split and (
        f"The caption of {longest.name} is longer than the {split[1]} tokens that the text encoder reads at once. Nothing is "
        f"left out: it is read in {split[0]} parts, as in your graph, but the model follows short captions better."
    )


def encoded(
    model, clip, vae, dataset: PairedDataset, store: Store, encoders: list[str], family: families.Family,
    on_phase: Callable[[str], None], look: Callable[[encode.Encoded], bool], guided: Collection[str] = (),
) -> Stored:  # fmt: skip
    """Every sample as the nodes of a graph give it; what the store has is not encoded again.

    First all captions are encoded and then all pictures, since on a small device text encoder and VAE push each other out.
    ``encoders`` is the fingerprint of both; they are given back to ComfyUI before the model is loaded. ``look(sample)`` is
    called with the sample that takes most memory once its caption is known, its latents of zeros; what it raises ends the
    encoding, and where it gives False, the model is tried on that sample before the others are encoded. Those named in
    ``guided`` get a negative too: see ``negatives``.

    Raises:
        ValueError: the model cannot take so many references, or none at all; found before more than one is encoded.
        DatasetError: a file has changed since the dataset was opened.
    """
    families.check_counts(family, {sample.name: len(sample.starts) for sample in dataset.samples})
    how = [family.name, families.REVISION, compat.VERSION, *encoders]
    keys = {
        sample.name: hashlib.sha256(
            repr([dataset.content[sample.name], dataset.caption(sample), len(sample.starts), how]).encode()
        ).hexdigest()
        for sample in dataset.samples
    }
    heard = {name: f"{key}-caption" for name, key in keys.items()}
    denied = {name: _negative(keys[name]) for name in guided}
    store.make_room([*keys.values(), *heard.values(), *denied.values()])
    missing = [sample for sample in dataset.samples if keys[sample.name] not in store]
    blank = encode.Blank(vae)

    def pictures(sample) -> list[np.ndarray]:
        images = dataset.images(sample)
        if dataset.has_changed(sample):
            raise DatasetError(f"A file of {sample.name} has changed since the dataset was read. Queue again.")
        return images

    def encoded_by(sample, clip, vae) -> encode.Encoded:
        return encode.encode(family, clip, vae, sample.name, pictures(sample), dataset.caption(sample))

    def speaker(sample) -> encode.Speaker:
        return encode.Speaker(clip, store.get(heard[sample.name], sample.name).conditioning)

    def hear(sample) -> encode.Encoded:
        """Its caption, kept until its pictures are encoded; returns it with latents of zeros."""
        if heard[sample.name] in store:  # of a run that was cancelled
            return encoded_by(sample, speaker(sample), blank)
        listener = encode.Listener(clip)
        found = encoded_by(sample, listener, blank)
        store.put(heard[sample.name], encode.Encoded(sample.name, torch.zeros(0), listener.heard))
        memory.check_interrupted()
        return found

    def finish(sample) -> None:
        store.put(keys[sample.name], encoded_by(sample, speaker(sample), vae))
        store.drop(heard[sample.name])
        memory.check_interrupted()

    def pixels(sample) -> int:
        headers = map(header, sample.images)
        return sum(math.prod(bucket((h.width, h.height), dataset.reading.resolution)) for h in headers)

    first = max(dataset.samples, key=lambda sample: (pixels(sample), len(dataset.caption(sample))))
    if first in missing:
        on_phase(f"captions 1/{len(missing)}  {first.name}")
    if not look(hear(first) if first in missing else store.get(keys[first.name], first.name)):
        if first in missing:
            finish(first)
            missing.remove(first)
        memory.release(clip.patcher, vae.patcher)
        check(model, store.get(keys[first.name], first.name))
    for i, sample in enumerate(missing, 1):
        if heard[sample.name] not in store:
            on_phase(f"captions {i}/{len(missing)}  {sample.name}")
            hear(sample)
    unguided = [sample for sample in dataset.samples if sample.name in denied and denied[sample.name] not in store]
    for i, sample in enumerate(unguided, 1):
        on_phase(f"negatives {i}/{len(unguided)}  {sample.name}")
        store.put(denied[sample.name], encode.encode_negative(family, clip, blank, sample.name, pictures(sample)))
        memory.check_interrupted()
    memory.release(clip.patcher)
    for i, sample in enumerate(missing, 1):
        on_phase(f"pictures {i}/{len(missing)}  {sample.name}")
        finish(sample)
    memory.release(clip.patcher, vae.patcher)
    return Stored(store, keys)


def negatives(samples: Stored, guided: Collection[str]) -> dict[str, list]:
    """A CONDITIONING to sample against, for each of the samples that were ``encoded`` as ``guided``, by name."""
    places = {name: (i, key) for i, (name, key) in enumerate(samples.keys)}
    return {name: samples[places[name][0]].against(samples.store.get(_negative(places[name][1]), name)) for name in guided}


def _negative(key: str) -> str:
    """The key in the store of the negative of a sample of that key."""
    return f"{key}-negative"


def check(model, sample: encode.Encoded, needed: int = 0) -> None:
    """Load the model, for training that takes ``needed`` bytes, and try it once on a sample.

    Raises:
        ValueError: the model cannot take it, ignores its references, or has something on it that cannot be trained through.
    """
    memory.load(model, needed or memory.guess(model, sample, 1))
    predicted = forward.trial(model, sample)
    forward.check_patches(model, sample)
    if sample.references:
        forward.check_reads_references(model, sample, predicted)
    compat.end_phase()
