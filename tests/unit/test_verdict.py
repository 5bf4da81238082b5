"""What is said of a training by its metrics."""
import math
import random

import pytest


@pytest.fixture(scope="session")
def verdict(plain):
    """The module needs nothing but Python, and is loaded without the room that it is in."""
    import importlib.util
    import sys

    from host import ROOT

    spec = importlib.util.spec_from_file_location("verdict", ROOT / "trainer/run/verdict.py")
    sys.modules["verdict"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.verdict


def told(steps, loss, held_out=None, norm=lambda t: 1.0, every=50):
    """Metrics of a training: ``loss``, ``held_out`` and ``norm`` by the part of it that is over, from 0 to 1."""
    rng = random.Random(0)
    found = {step: {"loss": loss(step / steps) * rng.lognormvariate(0, 0.3), "norm": norm(step / steps)} for step in range(1, steps + 1)}
    if held_out:
        for step in {*range(0, steps, every), steps}:
            found.setdefault(step, {})["held_out"] = held_out(step / steps)
    return dict(sorted(found.items()))


def falling(t):
    return 0.5 + math.exp(-5 * t)


@pytest.mark.parametrize("kind, says, rate, steps, loss, held_out", [
    ("still learning", "1.5000 before, 0.9724 at step 50. More", 1e-4, 50, lambda t: 1.5 - t / 2, lambda t: 0.5 + math.exp(-0.75 * t)),
    ("still learning", "More steps will help", 1e-4, 1000, falling, lambda t: 1.5 - t / 2),
    ("at its best", "steps 600 to 1000", 1e-4, 1000, falling, lambda t: 0.5 + math.exp(-8 * t)),
    ("memorising", "Stop at step 300, or add pairs", 1e-4, 1000, falling, lambda t: 1 + abs(t - 0.3)),
    ("unstable", "try 0.005", 0.05, 1000, lambda t: 1 + t, lambda t: 1 + t),
    ("no effect", "try 1e-06", 1e-7, 300, lambda t: 1, lambda t: 1 - t / 1000),
    ("still learning", "So few steps", 1e-4, 10, lambda t: 1, lambda t: 1 - t / 1000),
    ("still learning", "held-out pairs would tell", 1e-4, 1000, lambda t: 1.5 - t, None),
    ("at its best", "as far as the training loss shows", 1e-4, 1000, lambda t: 0.5 + math.exp(-20 * t), None),
    ("no effect", "try 1e-06", 1e-7, 1000, lambda t: 1, None),
    ("unstable", "try 0.001", 1e-2, 1000, lambda t: 1 + t, None),
])  # fmt: skip
def test_the_kinds(verdict, kind, says, rate, steps, loss, held_out):
    found = verdict(told(steps, loss, held_out), rate)
    assert found.kind == kind and found.text.startswith(kind) and says in found.text


def test_a_gradient_that_has_exploded_tells_of_a_high_rate(verdict):
    assert verdict(told(500, falling, falling, norm=lambda t: 100.0 if t < 0.02 else 1.0), 0.05).kind == "unstable"


def test_pairs_that_do_not_differ_are_named(verdict):
    found = verdict(told(500, falling, falling), 1e-4, alike=0.75)
    assert found.kind == "no effect" and "75% of the pairs" in found.text


def test_nothing_trained_is_no_error(verdict):
    assert verdict({}, 1e-4).kind == "still learning"
    assert verdict({0: {"held_out": 1.0}, 1: {"loss": 1.0, "norm": 1.0}}, 1e-4).kind == "still learning"
