"""What a plan counts on a model without weights is what a real step takes, and the plan is the cheapest that fits."""
import contextlib
import gc
import itertools
from collections import Counter, OrderedDict

import pytest
import torch
from counting import SETTINGS, copied, counted_and_measured
from counting import kinds as deep_kinds


@pytest.fixture
def kinds(zoo):
    return deep_kinds()


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_what_is_counted_is_what_a_step_takes(comfy, setting):
    counted, measured = counted_and_measured(*setting)
    print(f"{setting[0]}: counted {counted / 1e6:.2f} MB, measured {measured / 1e6:.2f} MB, {counted / measured - 1:+.2%}")
    assert counted == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("part", [0, 1])
def test_the_allocator_says_the_same(zoo, tiny, trainer, kinds, dtype, part):
    """A second witness: every allocation that PyTorch's own profiler saw. In half precision kernels of the CPU, unlike
    those of a GPU, make copies in float32 for themselves."""
    model, autograd = zoo.model(kinds["FLUX.1 Kontext"], dtype), trainer("host.autograd")
    sample = zoo.encoded(kinds["FLUX.1 Kontext"], 0, 1, size=(512, 512))
    simulation = trainer("plan.simulate").Simulation(model, sample, 1, 4, torch.device("cpu"))
    how = trainer("host.recompute").Recompute(part * simulation.blocks)
    training, samples = tiny.Training(model, rank=4), [trainer("host.forward").condition(model, sample)]
    sigma, noise = tiny.draws(samples)
    with training.lora.attached(), autograd.exact_gradients(model.model, model.model.diffusion_model, how):
        for profile in (contextlib.nullcontext(), torch.profiler.profile(profile_memory=True)):
            for p in training.lora.parameters():
                p.grad = None
            gc.collect()  # what others and the first step have left is not let go within
            gc.disable()
            with profile as seen:
                taken = [copied(sample) for sample in samples]
                trainer("step").backward(model, taken, sigma, [n.clone() for n in noise])
            gc.enable()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    assert simulation.count(how).peak == pytest.approx(max(live), rel=0.01 if dtype == torch.float32 else 0.05)


def test_blocks_that_are_not_run_are_counted_as_if_they_were(zoo, trainer, kinds, monkeypatch):
    simulate, recompute, kind = trainer("plan.simulate"), trainer("host.recompute"), kinds["FLUX.1 Kontext"]
    model, sample, counts = zoo.model(kind), zoo.encoded(kind, 0, 1, size=(128, 128)), []
    for few in (simulate.FEW, 1000):
        monkeypatch.setattr(simulate, "known", OrderedDict())
        simulation = simulate.Simulation(model, sample, 1, 4, torch.device("cuda"))
        simulation.depths = {of: min(len(of), few) for of in simulation.depths}
        n = simulation.blocks
        hows = [recompute.Recompute(k) for k in (0, 1, n // 2, n)] + [recompute.Recompute(n, True)]
        counts.append([simulation.count(how) for how in hows] + [simulation.count(hows[-1], streamed=True)])
    for cut, whole in zip(*counts):
        assert cut.peak == pytest.approx(whole.peak, rel=0.01) and cut.kept == pytest.approx(whole.kept, rel=0.01)
        assert (cut.adapter, cut.flops, cut.fetched) == (whole.adapter, whole.flops, whole.fetched)


@pytest.fixture
def chosen(zoo, trainer, kinds, monkeypatch):
    """`chosen(room)`: the plan for a CUDA device with so many bytes, for a Flux of 13 blocks, and its simulation."""
    kind, plan = kinds["FLUX.1 Kontext"], trainer("plan")
    model, sample = zoo.model(kind, torch.bfloat16), zoo.encoded(kind, 0, 1, size=(512, 512))
    model.load_device = torch.device("cuda")
    condition = trainer("host.forward").condition

    def on_cpu(model, sample):
        model.load_device = torch.device("cpu")
        try:
            return condition(model, sample)
        finally:
            model.load_device = torch.device("cuda")

    monkeypatch.setattr(trainer("host.forward"), "condition", on_cpu)

    def choose(room, batch_size=1, accumulation=1):
        monkeypatch.setattr(trainer("host.memory"), "room", lambda model: room)
        return plan.choose(model, sample, batch_size, 4, accumulation)

    choose.model = model
    return choose


def test_the_cheapest_plan_that_fits_is_chosen(chosen, trainer):
    """With less and less room, the next way is taken only where the one before does not fit."""
    seen, weights = [], chosen.model.model_size()
    for room in range(weights + 250_000_000, 0, -1_000_000):
        try:
            plan = chosen(room)
        except trainer("plan").DoesNotFit as error:
            refusal = str(error)
            break
        assert plan.weights - plan.streamed + plan.needed <= room
        seen.append((plan.how.blocks, plan.how.inputs_away, plan.streamed > 0))
    ways = list(dict.fromkeys(seen))
    print(ways, refusal)
    assert ways == sorted(ways) and ways[0] == (0, False, False) and ways[-1] == (13, True, True)
    assert {(k, False, False) for k in range(13)} | {(13, True, False)} <= set(ways)
    assert "What fits is a resolution of" in refusal


def test_a_batch_that_does_not_fit_is_divided(chosen, trainer):
    """Into parts as large as will do, and refused only where one sample does not fit."""
    seen, weights = [], chosen.model.model_size()
    one = chosen(10**12, accumulation=4)
    assert (one.batch, one.at_once) == (4, 1) and "nothing recomputed, 1 of 4 samples at a time; " in str(one)
    with pytest.raises(trainer("plan").DoesNotFit) as refusal:
        for room in range(weights + 350_000_000, 0, -4_000_000):
            plan = chosen(room, batch_size=4)
            assert plan.batch == 4 and plan.weights - plan.streamed + plan.needed <= room
            seen.append((plan.at_once, plan.how.blocks, plan.how.inputs_away, plan.streamed > 0))
    ways = list(dict.fromkeys(seen))
    print(ways, refusal.value)
    assert ways == sorted(ways, key=lambda way: (way[2:], -way[0], way[1])), "as few recomputed of each part as will do"
    assert {way[0] for way in ways if not way[2]} == {4, 2, 1} and ways[-1] == (1, 13, True, True)
    assert "batch_size" not in str(refusal.value)


def test_streamed_weights_serve_many_samples(trainer, monkeypatch):
    """Of the parts that fit, the one that brings fewest bytes of weights for each sample."""
    plan, gb = trainer("plan"), 10**9
    monkeypatch.setattr(plan.memory, "system_room", lambda: 10**12)

    class Counts:
        blocks, batch, at_once = 10, 4, 4

        def count(self, how, streamed=False, at_once=None):
            return trainer("plan.simulate").Counted(0, 0, 0, at_once * gb, 0, 0, 0)

    chosen = [plan.cheapest(Counts(), 24 * gb, room * gb, torch.device("cuda")) for room in (16, 4, 2)]
    assert [way.at_once for way in chosen] == [4, 2, 1] and all(way.streamed for way in chosen)
    with pytest.raises(plan.DoesNotFit):
        plan.cheapest(Counts(), 24 * gb, gb, torch.device("cuda"))


def test_what_is_known_is_not_counted_again(chosen, trainer, monkeypatch):
    first = chosen(10**12)
    monkeypatch.setattr(trainer("plan.simulate"), "twin", None)
    assert chosen(10**12) == first


def test_a_gpus_fused_kernels_keep_less(zoo, trainer, kinds):
    """RMSNorm keeps its input and a number a row there, on a CPU what lies between its operations too."""
    with torch.inference_mode():
        kind, recompute = kinds["FLUX.1 Kontext"], trainer("host.recompute")
        model, sample = zoo.model(kind, torch.bfloat16), zoo.encoded(kind, 0, 1, size=(256, 256))
        kept = [
            trainer("plan.simulate").Simulation(model, sample, 1, 4, torch.device(device)).count(recompute.NOTHING).kept
            for device in ("cpu", "cuda")
        ]
    assert kept[1] < 0.9 * kept[0] or not hasattr(torch.ops.aten, "_fused_rms_norm")


NOT_COUNTED = {"HiDream-E1"}  # its router looks at values


def test_every_family_is_counted(zoo, trainer):
    simulate, recompute, counted = trainer("plan.simulate"), trainer("host.recompute"), set()
    known = [kind for kind in zoo.KINDS if not kind.missing]
    for kind in known:
        with torch.inference_mode(), contextlib.suppress(NotImplementedError):
            model, sample = zoo.model(kind), zoo.encoded(kind, 0, max(kind.references, default=0), size=(128, 128))
            simulation = simulate.Simulation(model, sample, 1, 2, torch.device("cuda"))
            assert simulation.count(recompute.Recompute(simulation.blocks, True)).peak > 0
            counted.add(kind.name)
    assert {kind.name for kind in known} - counted == NOT_COUNTED


def test_a_model_that_cannot_run_without_weights_is_measured(zoo, tiny, trainer):
    """HiDream looks at the values that its router gives."""
    kind = next(kind for kind in zoo.KINDS if kind.name == "HiDream-E1")
    model, loop, plans = zoo.model(kind), trainer("loop"), []
    sample = zoo.encoded(kind, 0, 1)
    loop.train(model, [sample], loop.Settings(2), 2, 1e-3, tiny.watch(on_plan=plans.append))
    assert "not counted" in str(plans[0]) and plans[0].how.blocks == plans[0].blocks == 4
    assert "the first such step took 2 MB" in str(plans[-1]) and plans[-1].measured > 100_000


@pytest.mark.parametrize("recomputed", [False, True])
def test_weights_are_fetched_twice_a_step(zoo, tiny, trainer, kinds, monkeypatch, recomputed):
    """Each Linear's for the forward pass, and for the backward pass with what is recomputed for it."""
    import comfy.ops

    model = zoo.model(kinds["FLUX.1 Kontext"], torch.float8_e4m3fn, compute=torch.bfloat16)
    training, samples = tiny.Training(model, checkpointing=recomputed), [zoo.sample(kinds["FLUX.1 Kontext"], model, 0, 1)]
    trained, seen, fetch = set(training.lora.modules.values()), Counter(), comfy.ops.cast_bias_weight

    def counting(module, *args, **kwargs):
        seen[module] += module in trained
        return fetch(module, *args, **kwargs)

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", counting)
    training.gradient(samples, *tiny.draws(samples))
    behind_others = [n for module, n in seen.items() if module in trained]
    assert set(behind_others) <= {1, 2} and behind_others.count(2) > len(trained) - 8


@pytest.mark.parametrize("kind", ["FLUX.1 Kontext", "OmniGen2", "SDXL InstructPix2Pix"])
def test_inputs_in_system_memory_change_nothing(zoo, tiny, trainer, kinds, monkeypatch, kind):
    model, recompute = zoo.model(kinds[kind]), trainer("host.recompute")
    samples = [zoo.sample(kinds[kind], model, i, 1) for i in range(2)]
    gradients = []
    for away in (False, True):
        how = recompute.Recompute(1000, away)
        monkeypatch.setattr(tiny, "how", lambda checkpointing, how=how: how)
        gradients.append(tiny.Training(model, checkpointing=True).gradient(samples, *tiny.draws(samples)))
    assert torch.equal(*gradients)


def test_a_ledger_counts_what_is_alive(trainer):
    there = torch.zeros(1000)
    ledger = trainer("plan.ledger").Ledger("cpu", rounded_to=1)
    ledger.there_before([there])
    with ledger:
        a = torch.zeros(500)
        b = a.view(5, 100)[1:]
        c = b + 1
        assert ledger.live == 4 * 900 and there[:5].sum() == 0
        del a, b
        assert ledger.live == 4 * 400
        ledger.enter("later")
        c = c.T @ c
    assert ledger.live == c.nbytes and ledger.phases["later"].peak == 4 * 400 + c.nbytes
    assert ledger.phases["later"].flops == 2 * 4 * 100 * 100
