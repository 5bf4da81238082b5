"""What only the pixels show: whether an image decodes to its end, what it looks like, whether a pair lies aligned."""
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from . import alignment, images
from .alignment import Alignment
from .cache import Cache
from .images import Colour
from .pairs import DatasetError, Sample

VERSION = 2  # of what is cached; another number measures everything again
THUMB = 4  # pixels on a side of the picture by which likeness is judged
COMPARABLE = 0.1  # relative difference of aspect ratios up to which a pair's alignment is measured
SAME = 4  # of 255; a pair that differs by less at 256 pixels looks the same


@dataclass(frozen=True)
class Look:
    """One image: a hash of its decoded pixels, a tiny picture of it and whether any part of it is transparent, or what
    is wrong with the file."""

    pixels: str = ""
    thumb: tuple[int, ...] = ()
    transparent: bool = False
    error: str = ""


@dataclass(frozen=True)
class Comparison:
    """A target against its first input. ``alignment`` is None where it cannot be measured."""

    looks_same: bool = False
    alignment: Alignment | None = None


@dataclass(frozen=True)
class Measured:
    """One sample: a Look for each image (the target last), and the comparison of a pair whose images are readable."""

    looks: tuple[Look, ...]
    comparison: Comparison | None


def measure(
    samples: list[Sample], cache: Cache, on_progress: Callable[[int, int], None], background: Colour | None = None
) -> list[Measured]:
    """Measure every sample, with transparent parts over ``background``, reading only what the cache does not know;
    ``on_progress(images done, images in all)``.

    A few samples are decoded at a time, so memory does not grow with their number.
    """
    total = sum(len(sample.images) for sample in samples)
    done, results = 0, []

    def key(*digests: str) -> str:
        return f"{VERSION} {background} {' '.join(digests)}"

    def job(sample: Sample) -> tuple[Sample, Colour | None, list[str], list[dict | None], dict | None]:
        digests = [_digest(cache, path) for path in sample.images]
        pair = cache.get(key(digests[0], digests[-1])) if sample.starts else None
        return sample, background, digests, [cache.get(key(digest)) for digest in digests], pair

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        jobs = map(job, samples)  # SQLite is used by this thread alone
        for (_, _, digests, known, known_pair), (looks, pair) in _in_order(pool, _measure, jobs):
            for digest, look, before in zip(digests, looks, known):
                if before is None and digest and not look["error"]:  # another Pillow, or more memory, may well read it
                    cache.put(key(digest), look)
            if pair and all(digests) and pair is not known_pair:
                cache.put(key(digests[0], digests[-1]), pair)
            results.append(_measured(looks, pair))
            done += len(digests)
            on_progress(done, total)
    return results


def _digest(cache: Cache, path: Path) -> str:
    try:
        return cache.digest(path)
    except OSError:  # decoding it will say why
        return ""


def _in_order(pool: ThreadPoolExecutor, function, jobs: Iterator) -> Iterator:
    """Jobs and their results, in order, with only a few under way (``pool.map`` would take all jobs at once)."""
    waiting = [(job, pool.submit(function, *job)) for job in islice(jobs, 8)]
    try:
        while waiting:
            job, future = waiting.pop(0)
            yield job, future.result()
            waiting += [(job, pool.submit(function, *job)) for job in islice(jobs, 1)]
    finally:
        for _, future in waiting:
            future.cancel()


def _measure(
    sample: Sample, background: Colour | None, _: list[str], looks: list[dict | None], pair: dict | None
) -> tuple[list[dict], dict | None]:
    """Fill in what is not known; looks and comparisons are plain dictionaries here, as the cache keeps them."""
    looks, paired = list(looks), bool(sample.starts)
    small: list[Image.Image | None] = [None] * len(looks)
    compared = paired and pair is None
    for i, path in enumerate(sample.images):
        if looks[i] is None or (compared and i in (0, len(looks) - 1) and not looks[i]["error"]):
            looks[i], small[i] = _look(path, background)
    readable = paired and not (looks[0]["error"] or looks[-1]["error"])
    return looks, (pair or _compare(small[0], small[-1])) if readable else None


def _look(path: Path, background: Colour | None) -> tuple[dict, Image.Image | None]:
    try:
        image, transparent = images.load_with_alpha(path, background)
    except DatasetError as error:
        return asdict(Look(error=str(error))), None
    digest = hashlib.sha256(f"{image.size}".encode())
    digest.update(np.asarray(image).data)
    thumb = image.resize((THUMB, THUMB), Image.Resampling.BOX).tobytes()
    image.thumbnail((alignment.LONG_SIDE, alignment.LONG_SIDE), Image.Resampling.BOX, reducing_gap=None)
    return asdict(Look(digest.hexdigest(), tuple(thumb), transparent)), image


def _compare(start: Image.Image, end: Image.Image) -> dict:
    if not images.same_ratio(start.size, end.size, COMPARABLE):
        return {"looks_same": False, "alignment": None}
    size = min(start.size, end.size)
    start, end = (image.resize(size, Image.Resampling.BOX) for image in (start, end))
    difference = np.abs(np.asarray(start, np.int16) - np.asarray(end, np.int16)).max()
    found = alignment.measure(start.convert("L"), end.convert("L"))
    return {"looks_same": bool(difference < SAME), "alignment": asdict(found) if found else None}


def _measured(looks: list[dict], pair: dict | None) -> Measured:
    comparison = None
    if pair:
        found = pair["alignment"]
        comparison = Comparison(pair["looks_same"], Alignment(**found) if found else None)
    return Measured(tuple(Look(**{**look, "thumb": tuple(look["thumb"])}) for look in looks), comparison)
