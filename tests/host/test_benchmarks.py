"""The pieces of benchmarks/run.py, at sizes that take seconds, so that they go on saying what they say."""
import importlib
from dataclasses import fields, replace

import pytest
import torch

from host import ROOT


@pytest.fixture
def benchmarks(comfy, monkeypatch):
    """The modules of benchmarks/, which are not a package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def small(benchmarks):
    return benchmarks("loops").Case(tokens=64, hidden=128, depth=(1, 1), samples=2)


@pytest.fixture
def loops(benchmarks, small):
    """`loops(**options)`: the pack's, the bare and diffusers' loop on one small model."""
    def built(**options):
        there, case = benchmarks("loops"), replace(small, **options)
        pack = there.Pack(case)
        return {"pack": pack, "bare": there.Bare(case, pack), "diffusers": there.Diffusers(case, pack)}

    return built


@pytest.mark.parametrize("options", [{}, {"references": 0, "recomputed": True}, {"batch": 2}], ids=str)
def test_the_bare_loop_minimises_the_packs_loss(loops, trainer, options):
    """Same weights, sample, noise and sigma: same loss, so that what is compared is the same work."""
    there = loops(**options)
    pack, bare = there["pack"], there["bare"]
    n = pack.case.batch
    samples = [trainer("host.forward").condition(pack.model, sample) for sample in pack.samples[:n]]
    sigma, noise = torch.linspace(0.3, 0.7, n), torch.randn(n, *samples[0].x0.shape[1:])
    weight = trainer("host.sampling").x0_error_weight(pack.model.model.model_sampling, sigma)
    with torch.no_grad(), trainer("host.attention").differentiable():
        x0_pred = trainer("host.forward").predict_x0(pack.model, samples, noise, sigma)
        x0, conds = bare.batch(list(range(n)))
        wanted = trainer("objective").sample_losses(x0_pred, x0, weight).mean()
        with bare.prepared():
            assert bare.loss(x0, noise, sigma, conds) == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("recomputed", [False, True])
def test_every_loop_is_timed_and_counted(benchmarks, loops, dtype, recomputed):
    measure, there = benchmarks("measure"), loops(dtype=dtype, recomputed=recomputed)
    times = measure.alternating(there, 2, 2)
    counts = {name: measure.counted(loop) for name, loop in there.items()}
    for name in there:
        assert len(times[name].cpu) == 2 and min(times[name].cpu) > 0
        assert counts[name].launches > 300 and counts[name].peak > 100_000
        assert measure.counted(there[name]) == counts[name], "each step takes the same"
    assert measure.ratio(times["pack"], times["pack"]).value == 1
    trained = sum(p.nbytes for p in there["bare"].parameters)
    steps = 4 * len(there["bare"].parameters)
    assert counts["pack"].standing == pytest.approx(3 * trained + steps, rel=0.05), "adapter, two moments, a batch"
    assert counts["bare"].standing == pytest.approx(2 * trained + steps, rel=0.05), "its adapter was there before"
    if not recomputed and dtype == torch.bfloat16:
        assert counts["pack"].peak < 0.85 * counts["bare"].peak


def test_comfyuis_own_trainer_is_compared(benchmarks, small):
    there, measure = benchmarks("loops"), benchmarks("measure")
    if not there.Native.is_there():
        pytest.skip("this ComfyUI has no trainer of its own")
    case = replace(small, references=0, recomputed=True)
    pack = there.Pack(case)
    native = there.Native(case, pack)
    times = measure.alternating({"native": native}, 1, 2)["native"]
    assert len(times.cpu) == 1 and times.cpu[0] > 0
    ours, theirs = measure.counted(pack), measure.counted(native)
    assert theirs.peak > ours.peak and theirs.launches > ours.launches


def test_encoding_is_counted(benchmarks):
    """By hand: 2 operations for each of T5-XXL's 4.76 billion parameters, 256 tokens; twice FLUX.1's VAE, and attention."""
    flops, size = benchmarks("start").encoding()
    assert flops == pytest.approx(12e12, rel=0.1) and size == pytest.approx(9.6e9, rel=0.05)


@pytest.mark.slow
def test_all_of_it_ends_with_figures(benchmarks, small, monkeypatch, capsys):
    import counting

    loops, run = benchmarks("loops"), benchmarks("run")
    monkeypatch.setattr(loops.Case.__init__, "__defaults__", tuple(getattr(small, f.name) for f in fields(small)))
    monkeypatch.setattr(run, "COUNTS", (3, 6))
    monkeypatch.setattr(counting, "SETTINGS", counting.SETTINGS[:2])
    found = run.figures(quick=True)
    assert list(found) == ["step_vs_bare", "step_vs_diffusers", "native_speedup", "native_memory", "kernels_vs_bare",
                           "live_vs_bare", "plan_error_max"]  # fmt: skip
    native = ("native_speedup", "native_memory")
    assert all(found[key] > 0 for key in found if key not in native or loops.Native.is_there())
    assert found["plan_error_max"] < 0.01 and found["live_vs_bare"] < 0.85
    printed = capsys.readouterr().out
    for part in ("a step", "launches", "to the first step of 12B", "growth", "levers", "on a device", "plan against a step"):
        assert f"\n{part}" in "\n" + printed
