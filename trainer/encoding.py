"""From a folder of pairs to samples as the model takes them: each encoded once, and kept on disk."""
import hashlib
from collections.abc import Callable

from .data.dataset import PairedDataset
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
    on_phase: Callable[[str], None], look: Callable[[encode.Encoded], None],
) -> Stored:  # fmt: skip
    """Every sample as the nodes of a graph give it; what the store has is not encoded again.

    ``encoders`` is the fingerprint of text encoder and VAE, which are given back to ComfyUI before the model is loaded.

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
    store.make_room(keys.values())
    pairs_first = sorted(dataset.samples, key=lambda sample: not sample.starts)
    for i, sample in enumerate(pairs_first, 1):
        key = keys[sample.name]
        if key not in store:
            on_phase(f"encoding {i}/{len(keys)}  {sample.name}")
            images = dataset.images(sample)
            if dataset.has_changed(sample):
                raise DatasetError(f"A file of {sample.name} has changed since the dataset was read. Queue again.")
            caption = dataset.caption(sample)
            store.put(key, encode.encode(family, clip, vae, sample.name, images, caption))
            memory.check_interrupted()
        if i == 1:
            look(store.get(key, sample.name))
    memory.release(clip.patcher, vae.patcher)
    return Stored(store, keys)


def check(model, sample: encode.Encoded, needed: int) -> None:
    """Load the model, for work that takes ``needed`` bytes, and try it once on a sample.

    Raises:
        ValueError: the model cannot take it, ignores its references, or has something on it that cannot be trained through.
    """
    memory.load(model, needed)
    predicted = forward.trial(model, sample)
    forward.check_patches(model, sample)
    if sample.references:
        forward.check_reads_references(model, sample, predicted)
    compat.end_phase()
