"""How long a dataset of many samples takes: `python3 demo/host.py benchmarks/dataset.py [--samples 10000]`.

Prints names, matching and headers; the fingerprint the first time and again; the findings that need pixels in images a
second, the first time and again; and how much memory the process grew by. Needs Pillow and numpy only.
"""
import argparse
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from trainer.data import dataset  # noqa: E402
from trainer.data.cache import Cache  # noqa: E402

DISTINCT = 50  # photographs that are drawn; the others differ in a few bytes


def make(folder: Path, samples: int, side: int) -> None:
    """Pairs of smooth noise as JPEG with captions, every file of different content."""
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(2 * DISTINCT):
        small = Image.fromarray(random.integers(0, 256, (side // 16, side // 16, 3), np.uint8))
        path = folder / "drawn.jpg"
        small.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)
        drawn.append(path.read_bytes())
    path.unlink()
    for i in range(samples):
        for j, role in enumerate(("start", "end")):
            data = drawn[2 * (i % DISTINCT) + j]
            comment = f"{i}".encode()  # a JPEG comment makes the content another one
            header = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
            (folder / f"photo{i:05}_{role}.jpg").write_bytes(data[:2] + header + data[2:])
        (folder / f"photo{i:05}.txt").write_text(f"make it {i % 7}", encoding="utf-8")


def memory() -> float:
    """The most that the process has used, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=512, help="pixels")
    parser.add_argument("--pixels", type=int, default=1000, help="samples whose pixels are looked at")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pairlora-benchmark-"))
    try:
        pairs = folder / "pairs"
        pairs.mkdir()
        make(pairs, options.samples, options.side)
        time.sleep(3)  # what was written just now is read again
        run(pairs, options)
    finally:
        shutil.rmtree(folder)


def run(folder: Path, options: argparse.Namespace) -> None:
    images = 2 * options.samples
    reading = dataset.Reading(resolution=options.side)
    before = memory()

    def timed(what: str, function) -> object:
        start = time.perf_counter()
        result = function()
        seconds = time.perf_counter() - start
        print(f"{what:42} {seconds:7.2f} s   memory +{memory() - before:.0f} MB", flush=True)
        return result, seconds

    def names_and_headers() -> dataset.Report:
        report = dataset.survey(folder, reading)
        dataset.read_headers(report)
        return report

    print(f"{options.samples:,} samples, {images:,} images of {options.side}x{options.side}")
    report, _ = timed("names, captions, matching and headers", names_and_headers)
    assert len(report.found.samples) == options.samples

    def state() -> str:
        with Cache(folder.parent / "cache.sqlite") as cache:
            return dataset.state(folder, reading, cache)

    first, _ = timed("fingerprint, every file read", state)
    again, _ = timed("fingerprint, nothing changed", state)
    assert first == again

    report.found.samples = report.found.samples[: options.pixels]

    def pixels() -> None:
        with Cache(folder.parent / "cache.sqlite") as cache:
            dataset.read_pixels(report, reading, cache, lambda done, total: None)

    images = 2 * len(report.found.samples)
    for what in ("pixels, the first time", "pixels, from the cache"):
        _, seconds = timed(f"{what} ({images:,} images)", pixels)
        print(f"{images / seconds:50,.0f} images a second")


if __name__ == "__main__":
    main()
