"""Where the memory runs out, in whatever part of a step, the training goes on in a way that takes less, to the same LoRA."""
import pytest
import torch

WAYS = [
    "1 of 4 blocks recomputed", "2 of 4 blocks recomputed", "3 of 4 blocks recomputed", "all 4 blocks recomputed",
    "all 4 blocks recomputed, 2 of 4 samples at a time", "all 4 blocks recomputed, 1 of 4 samples at a time",
]  # fmt: skip
ELSEWHERE = [f"all 4 blocks recomputed, their inputs in system memory, 1 of 4 samples at a time{streamed}" for streamed in (
    "", ", 0.4 GB of 1.0 GB of weights streamed", ", 1.0 GB of 1.0 GB of weights streamed")]  # fmt: skip
EXACT = 4  # of them give the same to the last bit
STEPS = 3


@pytest.fixture(scope="module")
def model(tiny, trainer):
    with torch.inference_mode():  # as the executor runs it
        trainer("host.memory").load(model := tiny.flux(), 0)
    return model


@pytest.fixture(scope="module")
def train(tiny, trainer, model):
    """`train()`: the LoRA of some steps on samples of two shapes, with the warnings and plans on the way; the model is as
    before, whatever becomes of them."""
    loop, plan = trainer("loop"), trainer("plan")
    samples = [tiny.encoded(i, tokens=6 + 3 * (i == 2)) for i in range(5)]
    counted = trainer("plan.simulate").Counted(0, 0, 0, 0, 0, 0, 0)
    start = plan.Plan(trainer("host.recompute").NOTHING, 4, counted, 800_000_000, 1_000_000_000, 0, batch=4, at_once=4)

    def state(model):
        found = tiny.state(model)
        for attributes in found[1].values():  # ComfyUI makes these anew as it loads a model again
            attributes.pop("weight_function", None), attributes.pop("bias_function", None)
        return found

    def run():
        warnings, plans, steps, before = [], [], [], state(model)
        try:
            with torch.inference_mode():
                lora = loop.train(
                    model, samples, loop.Settings(2, 4), STEPS, 1e-3,
                    tiny.watch(lambda step, loss: steps.append(step), plans.append, warnings.append), start,
                )  # fmt: skip
            assert steps == list(range(1, STEPS + 1))
        finally:
            tiny.same(state(model), before)
        return torch.cat([t.flatten() for t in lora.values()]), warnings, plans

    return run


@pytest.fixture(scope="module")
def wanted(train):
    """The LoRA of a training that has the memory it needs."""
    return train()[0]


def failing(function, at: int, times: list[int]):
    """``function``, whose ``at``-th call finds no memory, again and again until ``times`` is used up."""
    calls = 0

    def run(*args, **kwargs):
        nonlocal calls
        calls += 1
        if times and calls == at:
            times.pop()
            calls = 0
            raise torch.cuda.OutOfMemoryError("out of memory")
        return function(*args, **kwargs)

    return run


def in_check(trainer, monkeypatch, times):
    forward = trainer("host.forward")
    monkeypatch.setattr(forward, "check_unchanged", failing(forward.check_unchanged, 1, times))


def in_drawing(trainer, monkeypatch, times):
    """Of the first step's noise, after which it is drawn again."""
    loop, draw = trainer("loop"), trainer("loop").draw
    short = failing(lambda *args: None, 1, times)
    monkeypatch.setattr(loop, "draw", lambda *args: (draw(*args), short())[0])


def in_forward(trainer, monkeypatch, times, name="forward", at=12):
    """In the first step's; Linears in the check before it do not count."""
    loop, layer = trainer("loop"), trainer("host.autograd").FrozenLinear
    gradient, short = loop.gradient, failing(getattr(layer, name), at, times)

    def within(*args):
        with monkeypatch.context() as patched:
            patched.setattr(layer, name, staticmethod(short))
            return gradient(*args)

    monkeypatch.setattr(loop, "gradient", within)


def in_backward(trainer, monkeypatch, times):
    in_forward(trainer, monkeypatch, times, "backward")


def in_clipping(trainer, monkeypatch, times):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", failing(torch.nn.utils.clip_grad_norm_, 1, times))


def in_moments(trainer, monkeypatch, times, at=8):
    """While the optimizer makes its moments: the second ones of the fourth parameter."""
    step = torch.optim.AdamW.step

    def within(optimizer, *args):
        with monkeypatch.context() as patched:
            patched.setattr(torch, "zeros_like", failing(torch.zeros_like, at, times))
            return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", within)


def in_a_later_step(trainer, monkeypatch, times):
    """In the gradient of the third."""
    loop = trainer("loop")
    gradient, done = loop.gradient, []

    def within(*args):
        if len(done) == STEPS - 1 and times:
            times.pop()
            raise torch.cuda.OutOfMemoryError("out of memory")
        found = gradient(*args)
        done.append(found)
        return found

    monkeypatch.setattr(loop, "gradient", within)


PHASES = [in_check, in_drawing, in_forward, in_backward, in_clipping, in_moments, in_a_later_step]


@pytest.mark.parametrize("times", [EXACT, len(WAYS)])
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_it_steps_down_and_the_training_goes_on(tiny, trainer, train, wanted, monkeypatch, phase, times):
    phase(trainer, monkeypatch, left := [1] * times)
    lora, warnings, plans = train()
    step = STEPS if phase is in_a_later_step else 1
    assert not left and [warning.partition(" (")[0] for warning in warnings] == [f"At step {step} the memory ran out"] * times
    assert [warning.partition("Trained on with ")[2] for warning in warnings] == [f"{way}." for way in WAYS[:times]]
    assert str(plans[-1]).startswith(f"{WAYS[times - 1]}; the first such step took ")
    error = tiny.relative(lora, wanted)
    print(f"{phase.__name__}, {times} times: {error:.1e}")
    assert error < 1e-6 if times > EXACT else torch.equal(lora, wanted)


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_where_nothing_is_left_it_is_raised(trainer, train, monkeypatch, phase):
    phase(trainer, monkeypatch, left := [1] * (len(WAYS) + 1))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        train()
    assert not left


@pytest.mark.parametrize("times", [len(WAYS + ELSEWHERE), len(WAYS + ELSEWHERE) + 1])
def test_a_device_with_memory_of_its_own_has_more_ways(tiny, trainer, train, wanted, monkeypatch, times):
    """As if the CPU were one."""
    plan = trainer("plan").Plan
    harder = plan.harder
    monkeypatch.setattr(plan, "harder", lambda self, device: harder(self, torch.device("cuda")))
    in_backward(trainer, monkeypatch, [1] * times)
    if times > len(WAYS + ELSEWHERE):
        with pytest.raises(torch.cuda.OutOfMemoryError):
            train()
        return
    lora, warnings, _ = train()
    assert [warning.partition("Trained on with ")[2] for warning in warnings] == [f"{way}." for way in (WAYS + ELSEWHERE)[:times]]
    assert tiny.relative(lora, wanted) < 1e-6


def test_another_way_does_not_state_what_the_one_before_takes(train):
    _, _, (plan,) = train()
    assert "1.0 GB counted" in str(plan) and not plan.is_unknown
    while plan := plan.harder(torch.device("cuda")):
        assert plan.is_unknown and str(plan) == f"{plan.words}; not counted"
