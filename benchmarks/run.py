"""How fast the pack trains and what it takes, beside other loops: `python3 benchmarks/run.py [--quick]`, about 20 minutes on
two CPU cores, or 4.

Prints a table, and as the last line one JSON object of the worst ratios seen. Times are CPU seconds of one thread, since
other work on the machine does not change those much; loops take turns, and only times of one run are compared.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "demo"), str(ROOT / "tests")]

PACKAGES = ("diffusers==0.39.0",)
KEYS = ("step_vs_bare", "step_vs_diffusers", "native_speedup", "native_memory", "kernels_vs_bare", "live_vs_bare",
        "plan_error_max")  # fmt: skip
COUNTS = (10, 100, 1000, 10_000)  # samples


def row(*cells: object) -> None:
    what, where, *rest = map(str, cells)
    print(f"{what:27} {where:51} {'  '.join(rest)}", flush=True)


def mb(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"


def against_others(quick: bool) -> dict[str, float | None]:
    """Points 1, 2 and 4: the same steps by a bare loop and on diffusers' class."""
    import torch
    from loops import Bare, Case, Diffusers, Pack
    from measure import alternating, counted, ratio

    bf16 = torch.bfloat16
    cases = [(Case(), 3), (Case(bf16), 3)]
    if not quick:
        cases += [(Case(bf16, recomputed=True), 3), (Case(bf16, tokens=1024), 2), (Case(tokens=1024), 2)]
    worst: dict[str, list[float]] = {"step_vs_bare": [], "step_vs_diffusers": [], "live_vs_bare": []}
    for case, steps in cases:
        pack = Pack(case)
        loops = {"pack": pack, "bare": Bare(case, pack), "diffusers": Diffusers(case, pack)}
        counts = {name: counted(loop) for name, loop in loops.items()}
        times = alternating(loops, 3 if quick else 5, steps)
        row("a step", case, f"{times['pack']}")
        for name in ("bare", "diffusers"):
            found = ratio(times["pack"], times[name])
            worst[f"step_vs_{name}"].append(found.value)
            row(f"  against {name}", case, f"{times[name]}", f"ratio {found}")
        for name, of in counts.items():
            row("  live bytes, launches", name, mb(of.peak), f"{of.launches:,}")
        if case.dtype == bf16:  # float32 layers have nothing to save on
            worst["live_vs_bare"].append(counts["pack"].peak / counts["bare"].peak)
    return {name: round(max(of), 3) for name, of in worst.items()}


def against_native(quick: bool) -> dict[str, float | None]:
    """Point 2: ComfyUI's own trainer, without references and with the same recomputing."""
    import torch
    from loops import Case, Native, Pack
    from measure import alternating, counted, ratio

    if not Native.is_there():
        row("ComfyUI's own trainer", "this ComfyUI has none", "left out")
        return {"native_speedup": None, "native_memory": None}
    case = Case(torch.bfloat16, references=0, recomputed=True)
    cases = [case] if quick else [case, replace(case, dtype=torch.float32), replace(case, batch=4)]
    speedups, shares = [], []
    for case in cases:
        pack = Pack(case)
        native = Native(case, pack)
        ours, theirs = (of.peak + of.standing for of in (counted(pack), counted(native)))
        again = native.model.model_size() if native.reads_it_again else 0
        shares.append(ours / (theirs - again))
        row("ComfyUI's own trainer", case, f"over the base {mb(theirs - again)}, the pack {mb(ours)}", f"ratio {shares[-1]:.3f}")
        times = alternating({"pack": pack, "native": native}, 2 if quick else 3, 2)
        found = ratio(times["native"], times["pack"])
        speedups.append(found.value)
        row("", case, f"{times['native']}", f"the pack {times['pack']}", f"ratio {found}")
    return {"native_speedup": round(min(speedups), 3), "native_memory": round(max(shares), 3)}


def launches() -> float:
    """Point 3: operations of a step, before the optimizer, and of one more block of each kind; sizes do not matter."""
    import torch
    from loops import Bare, Case, Pack
    from measure import counted

    def count(depth: tuple[int, int], recomputed: bool) -> tuple[int, int]:
        case = Case(torch.bfloat16, 64, hidden=128, depth=depth, recomputed=recomputed)
        pack = Pack(case)
        return counted(pack).launches, counted(Bare(case, pack)).launches

    worst = []
    for recomputed in (False, True):
        small, double, single = (count(depth, recomputed) for depth in ((1, 1), (2, 1), (1, 2)))
        words = "all blocks recomputed" if recomputed else "nothing recomputed"
        for name, more in (("a double block", double), ("a single block", single)):
            ours, bare = (b - a for a, b in zip(small, more))
            row("launches", f"{name}, {words}", f"{ours:,}, bare {bare:,}", f"ratio {ours / bare:.3f}")
        full = [a + 18 * (d - a) + 37 * (s - a) for a, d, s in zip(small, double, single)]
        worst.append(full[0] / full[1])
        row("launches", f"a step of 19 + 38 blocks, {words}", f"{full[0]:,}, bare {full[1]:,}", f"ratio {worst[-1]:.3f}")
    return round(max(worst), 3)


def start() -> None:
    """Point 5: from queueing to the first step."""
    from start import parts

    found = parts()
    for name, cold, warm, how in found:
        row("to the first step of 12B", name, f"cold {cold:5.2f} s, warm {warm:5.2f} s", how)
    cold, warm = (sum(of[i] for of in found) for i in (1, 2))
    row("to the first step of 12B", "together", f"cold {cold:5.2f} s, warm {warm:5.2f} s")


def growth(quick: bool) -> None:
    """Point 6: what a step takes as things get more."""
    import torch
    from loops import Case, Pack
    from measure import alternating, counted

    each = 64  # tokens of an image
    base = Case(torch.bfloat16, 2 * each, hidden=256)
    axes = {
        "references": [replace(base, references=n, tokens=each * (1 + n)) for n in (0, 1, 2, 3)],
        "batch": [replace(base, batch=n) for n in (1, 2, 4)],
        "rank": [replace(base, rank=n) for n in (4, 16, 64)],
        "depth": [replace(base, depth=(n, 2 * n)) for n in (1, 2, 4)],
    }
    for axis, cases in axes.items():
        for case in (cases[0], cases[-1]) if quick else cases:
            pack, value = Pack(case), getattr(case, axis)
            row("growth", f"{axis} {value}", str(alternating({"": pack}, 3, 8)[""]), mb(counted(pack).peak))
    for n in (COUNTS[0], COUNTS[-1]) if quick else COUNTS:
        row("growth", f"{n:,} samples", *with_samples(n, base))


def with_samples(n: int, case) -> Iterator[str]:
    """Seconds of a step, its live bytes, seconds before the first, and what the process grew by."""
    import psutil
    from loops import Pack
    from measure import counted

    from tiny import module

    store_of, process = module("host.store"), psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        store, sample = store_of.Store(Path(folder)), case.encoded(0)
        keys = {f"sample{i}": f"{i}" for i in range(n)}
        for key in keys.values():
            store.put(key, sample)
        pack = Pack(case, store_of.Stored(store, keys))
        before, ends = process.memory_info().rss, [(time.process_time(), time.perf_counter())]
        pack.run(41, lambda: ends.append((time.process_time(), time.perf_counter())))
        cpu, wall = (statistics.median(b - a for a, b in zip(of[1:], of[2:])) for of in zip(*ends))
        yield f"{cpu:.3f} s ({wall:.3f} wall)"
        grown = process.memory_info().rss - before
        yield mb(counted(pack).peak)
        yield f"{ends[1][1] - ends[0][1]:.1f} s to the first step"
        yield f"process +{mb(grown)}"


def levers() -> None:
    """What other kernels for clipping and for the optimizer would gain, of the step above."""
    import torch
    from loops import Case, Pack

    from tiny import module

    def seconds(work) -> float:
        found = []
        for _ in range(12):
            start = time.process_time()
            work()
            found.append(time.process_time() - start)
        return statistics.median(found[2:])

    model = Pack(Case(torch.bfloat16)).model
    with torch.inference_mode(False):
        parameters = module("lora.inject").LoraLayers(model.model.diffusion_model, 16, 0, torch.device("cpu")).parameters()
    for p in parameters:
        p.grad = torch.randn_like(p)
    for name, options in (("as it is", {}), ("foreach", {"foreach": True}), ("fused", {"fused": True})):
        optimizer = torch.optim.AdamW(parameters, 1e-4, **options)
        row("levers", f"AdamW, {name}", f"{1000 * seconds(optimizer.step):.2f} ms")
    for name, foreach in (("as it is", None), ("one by one", False), ("foreach", True)):
        clip = torch.nn.utils.clip_grad_norm_
        row("levers", f"clipping, {name}", f"{1000 * seconds(lambda foreach=foreach: clip(parameters, 1.0, foreach=foreach)):.2f} ms")


def on_device() -> None:
    """Point 7: a model of full size on a CUDA device."""
    import torch

    if not torch.cuda.is_available():
        row("on a device", "left out: no CUDA device")
        return
    import device

    rate, (resident, streamed, flops) = device.matrix_rate(), device.both()
    row("on a device", torch.cuda.get_device_name(), f"matrix products {rate / 1e12:.0f} TFLOP/s")
    for name, of in (("resident", resident), ("half of the weights streamed", streamed)):
        row("FLUX.1 Kontext 12B, 1024 px", f"{name}, {of.loaded:.0%} loaded", f"{of.seconds:.3f} s a step",
            f"{flops / of.seconds / rate:.2f} of the matrix rate", f"peak {of.peak / 1e9:.2f} GB",
            f"planned {of.planned / 1e9:.2f} GB", f"{of.planned / of.peak - 1:+.1%}")  # fmt: skip
    row("FLUX.1 Kontext 12B, 1024 px", "streamed against resident", f"{streamed.seconds / resident.seconds:.2f}")


def plan_error() -> float:
    """The largest relative difference between the counted peak and that of a real step."""
    from counting import SETTINGS, counted_and_measured

    worst = 0.0
    for setting in SETTINGS:
        counted, measured = counted_and_measured(*setting)
        worst = max(worst, abs(counted / measured - 1))
    row("plan against a step", f"{len(SETTINGS)} settings", f"at most {worst:.4%} apart")
    return round(worst, 6)


def figures(quick: bool) -> dict[str, float | None]:
    """Print the table; returns the worst ratios."""
    import torch

    row("what", "setting", f"CPU seconds, medians (ratios: least to most); {os.cpu_count()} cores, torch {torch.__version__}")
    found = against_others(quick) | against_native(quick) | {"kernels_vs_bare": launches()}
    start()
    growth(quick)
    levers()
    on_device()
    found["plan_error_max"] = plan_error()
    return {key: found[key] for key in KEYS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer settings and rounds")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not asked.inside:
        from host import Host

        host = Host().prepare(*PACKAGES)
        environment = {"OMP_NUM_THREADS": "1", **host.environment()}
        sys.exit(subprocess.call(host.command(Path(__file__), "--inside", *sys.argv[1:]), env=environment))
    import launch

    launch.choose_device()
    launch.load_pack()
    began = time.monotonic()
    found = figures(asked.quick)
    row("all of this", "", f"{time.monotonic() - began:.0f} s")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
