"""Each verdict on a training of the demo model that deserves it."""
import json
import shutil

import pytest
import torch

from host import ROOT

pytestmark = pytest.mark.slow
PAIRS, HELD_OUT = ROOT / "samples/background-removal", ROOT / "samples/background-removal-held-out"


@pytest.fixture(scope="module")
def train(trainer, dataset_in, tmp_path_factory):
    """`train(folder, steps, learning_rate)`: the note and the report of a training at 64 pixels, two pairs a step."""
    once, job, places, listener = (trainer(f"run.{name}") for name in ("once", "job", "places", "listener"))
    with torch.inference_mode():
        demo = trainer("host.demo_model").load()

    def start(folder, steps, learning_rate, **settings):
        place = tmp_path_factory.mktemp("run")
        where = places.Places(str(place), str(place / "loras"), str(place.parent / "encodings"))
        wanted = trainer("loop").Settings(batch_size=2, timesteps="uniform", **settings)
        with torch.inference_mode():
            work = job.Job(*demo, dataset_in(folder, background="white"), wanted, steps, learning_rate, "edit", dataset_in(HELD_OUT, background="white"))
            result = once.train_once(work, where, listener.Listener())
        print(result.report)
        return json.loads(next(place.glob(f"pairlora/*/step{steps}.json")).read_text()), result.report

    return start


def copies(folder, numbers, start="start"):
    folder.mkdir()
    for number in numbers:
        shutil.copy(PAIRS / f"photo{number:03}_{start}.png", folder / f"photo{number:03}_start.png")
        shutil.copy(PAIRS / f"photo{number:03}_end.png", folder)
    return folder


@pytest.mark.parametrize("kind, steps, learning_rate", [
    ("still learning", 60, 2e-3), ("unstable", 200, 5e-2), ("no effect", 200, 1e-7),
])  # fmt: skip
def test_too_few_steps_and_rates_too_high_and_too_low(train, kind, steps, learning_rate):
    note, report = train(PAIRS, steps, learning_rate, previews=0)
    assert note["verdict"] == kind and f"\n{kind}: " in report


def test_enough_steps_within_their_share_of_the_time(train):
    note, _ = train(PAIRS, 1000, 2e-3)
    assert note["verdict"] == "at its best"
    assert min(note["scores"].values()) < note["held_out_loss_first"] / 2
    shares = {name: seconds / note["seconds"] for name, seconds in note["spent"].items()}
    print(", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
    assert shares["scores"] < 0.06 and shares["checkpoints"] < 0.02 and shares["previews"] < 0.12


def test_three_pairs_for_far_too_long(train, tmp_path):
    note, _ = train(copies(tmp_path / "three", (1, 2, 3)), 450, 2e-3, previews=0)
    assert note["verdict"] == "memorising" and note["best_step"] < 450


def test_inputs_that_equal_their_targets(train, tmp_path):
    note, report = train(copies(tmp_path / "same", range(1, 9), "end"), 30, 2e-3, previews=0)
    assert note["verdict"] == "no effect" and "the target equals the input" in report
