"""Which recipe learns most from the same pairs in the fewest steps: `python3 demo/host.py benchmarks/recipes.py`.

Trains the demo's base on three sets, three seeds each, and scores what comes out on pairs that it was not trained on: the
held-out loss, and pictures by ComfyUI's own sampler. What was run is kept in recipes.jsonl beside this file and not run
again, so it can be done in pieces: `--recipe NAME`, `--set NAME`, `--part 1/2` beside `--part 2/2` for two processes, and
`--table` for what there is. A run takes some minutes on one CPU core.

Candidates are tried here, on top of the pack's own code: one becomes part of it once the table shows that it helps on two of
the three sets and hurts on none.
"""
import argparse
import contextlib
import itertools
import json
import random
import statistics
import sys
import tempfile
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "demo"), str(ROOT / "tests")]
RESULTS = Path(__file__).with_suffix(".jsonl")

SETS, SEEDS = ("background-removal", "try-on", "small-region"), (0, 1, 2)
SCORED, SHOWN = 50, 100  # steps between two held-out losses, and between two rounds of pictures
PRESENT = {"batch_size": 4, "timesteps": "uniform"}  # with the defaults of all else


@dataclass(frozen=True)
class Recipe:
    """What differs from the present recipe, which takes 1,000 steps."""

    steps: int = 500
    rate: float = 2e-3
    settings: dict = field(default_factory=dict)
    optimizer: dict = field(default_factory=dict)  # options of AdamW
    ratio: float = 1.0  # the rate of lora_B in that of lora_A (LoRA+, https://arxiv.org/abs/2402.12354)
    visits: bool = False  # timesteps spread over samples, over the visits to each, and over steps
    region: float = 1.0  # the weight of what changes in that of the rest, at most
    flips: bool = False  # every pair in a mirror too
    small: float = 0.0  # share of the steps at half the resolution, the first ones


RECIPES = {
    "present": Recipe(1000),
    "visits": Recipe(visits=True),
    "cooldown 50 %": Recipe(settings={"cooldown": 50}),
    "region 6": Recipe(region=6.0),
    "rate 4e-3": Recipe(rate=4e-3),
    "ratio 4": Recipe(ratio=4.0),
    "visits, ratio 4": Recipe(visits=True, ratio=4.0),
    "beta2 0.99": Recipe(optimizer={"betas": (0.9, 0.99)}),
    "no decay": Recipe(optimizer={"weight_decay": 0.0}),
    "flips": Recipe(flips=True),
    "small first": Recipe(small=0.3),
}


@contextlib.contextmanager
def spread():
    """Timesteps as a low-discrepancy sequence over the samples of an epoch, over the visits to each sample (van der
    Corput's, from where it began), and over consecutive steps, which take turns at eight parts of the range."""
    import torch
    from pairlora.trainer import loop, objective

    drawn: deque[float] = deque()

    def mirrored(n: int) -> float:
        return int(f"{n:b}"[::-1], 2) / 2 ** n.bit_length() if n else 0.0

    def visits(n: int, seed: int):
        rng = random.Random(seed)
        own, turns = [(rank + rng.random()) / n for rank in rng.sample(range(n), n)], sorted(range(8), key=mirrored)
        for epoch in itertools.count():
            u = [(first + mirrored(epoch)) % 1 for first in own]
            parts = [[i for i in range(n) if int(u[i] * 8) == part] for part in range(8)]
            for part in parts:
                rng.shuffle(part)
            for i in itertools.chain(*itertools.zip_longest(*(parts[turn] for turn in turns))):
                if i is not None:
                    drawn.append(u[i])
                    yield i

    def of_batch(n: int, generator) -> torch.Tensor:
        return torch.tensor([drawn.popleft() for _ in range(n)]).clamp(1e-3, 1 - 1e-3)

    with mock.patch.object(loop, "shuffled", visits), mock.patch.object(objective, "stratified", of_batch):
        yield


@contextlib.contextmanager
def weighted(dataset, size: tuple[int, int], most: float):
    """The loss of each sample weighs up to ``most`` where its target differs from its input, on a latent grid of ``size``,
    with a mean of 1; where more than half differs, all alike."""
    import torch
    import torch.nn.functional as F
    from pairlora.trainer import objective
    from pairlora.trainer.host import forward
    from pairlora.trainer.similarity import changed

    weights, members, predict = {}, [], forward.predict_x0
    for sample in dataset.samples:
        start, *_, target = dataset.images(sample)
        region = torch.tensor(changed(start, target))
        mask = F.interpolate(region.float()[None, None], size, mode="area")
        weight = 1 + (most - 1) * mask if region.float().mean() <= 0.5 else torch.ones_like(mask)
        weights[sample.name] = weight / weight.mean()

    def noting(model, samples, noise, sigma):
        members[:] = [sample.name for sample in samples]
        return predict(model, samples, noise, sigma)

    def losses(x0_pred, x0, weight, *_):
        region = torch.cat([weights.get(name, torch.ones(1, 1, *size)) for name in members])
        return weight * (region * (x0_pred - x0).square()).flatten(1).mean(1)

    def plain(x0_pred, x0, weight, *_):  # of held-out pairs, which are scored alike whatever the recipe
        return weight * (x0_pred - x0).square().flatten(1).mean(1)

    def chosen(x0_pred, x0, weight, *rest):
        return (losses if torch.is_grad_enabled() and x0_pred.requires_grad else plain)(x0_pred, x0, weight, *rest)

    with mock.patch.object(forward, "predict_x0", noting), mock.patch.object(objective, "sample_losses", chosen):
        yield


def state_of(model, settings, recipe: Recipe):
    """The pack's State, with the optimizer that the recipe wants."""
    import torch
    from pairlora.trainer.state import State

    class Rated(torch.optim.AdamW):
        def step(self):
            for group in self.param_groups:  # whose rate is set anew at each step
                group["lr"] *= group["ratio"]
            super().step()

    with torch.inference_mode(False):
        state = State(model, settings, recipe.rate, averaged=True)
        named = [(name, p) for layer in state.lora.layers.values() for name, p in layer.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for name, p in named if part in name], "ratio": ratio}
            for part, ratio in (("lora_A", 1.0), ("lora_B", recipe.ratio))
        ]
        state.optimizer = Rated(groups, recipe.rate, fused=True, **recipe.optimizer)
    return state


def opened(name: str, folder: Path, resolution: int = 128):
    """A set's PairedDatasets, to train on and held out."""
    import make_samples
    from pairlora.trainer.data import cache, dataset

    if name == "small-region":
        make_samples.write_small_region(folder)
    where = folder if name == "small-region" else ROOT / "samples"
    reading = dataset.Reading(resolution=resolution, background="white")
    with cache.Cache() as pixels:
        return [
            dataset.open_dataset(dataset.survey(where / part, reading), reading, pixels, lambda *_: None)
            for part in (name, f"{name}-held-out")
        ]


def flipped(dataset):
    """Every sample as in a mirror."""
    from pairlora.trainer.data.dataset import PairedDataset

    class Flipped(PairedDataset):
        def images(self, sample):
            return [picture[:, ::-1].copy() for picture in super().images(sample)]

        def has_changed(self, sample):
            return False

    content = {name: f"{value} flipped" for name, value in dataset.content.items()}
    return Flipped(dataset.folder, dataset.samples, dataset.captions, content, dataset.reading)


def run(name: str, recipe: Recipe, seed: int) -> dict:
    """Train once; the scores by step."""
    import torch
    from pairlora.trainer import encoding, loop, scores, watch
    from pairlora.trainer.host import demo_model, families, preview
    from pairlora.trainer.host.store import Store
    from pairlora.trainer.similarity import by_region, changed

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), contextlib.ExitStack() as tried:
        datasets = opened(name, Path(folder))
        model, clip, vae = demo_model.load()
        family = families.family_of(model.model, "", 1)
        store, encoders = Store(Path(folder) / "store"), encoding.encoders_fingerprint(clip, vae)

        def encoded(dataset):
            return encoding.encoded(model, clip, vae, dataset, store, encoders, family, lambda *_: None, lambda *_: True)

        trained, held_out = map(encoded, datasets)
        size = trained[0].latent.shape[-2:]
        if recipe.flips:
            trained = [*trained, *encoded(flipped(datasets[0]))]
        if recipe.visits:
            tried.enter_context(spread())
        if recipe.region != 1:
            tried.enter_context(weighted(datasets[0], size, recipe.region))
        pictures = [datasets[1].images(sample) for sample in datasets[1].samples]
        found: dict[str, dict] = {"loss": {}, "held_out": {}, "average": {}, "pictures": {}}

        def likeness() -> dict[str, float]:
            made = [preview.sampled(model, vae, family, sample, None, 0, 20) for sample in held_out]
            of_each = [by_region(picture, target, changed(first, target)) for picture, (first, *_, target) in zip(made, pictures)]
            return {key: round(statistics.fmean(of[key] for of in of_each if key in of), 4) for key in of_each[0]}

        class Scoring(watch.Watch):
            losses: list[float] = []

            def stepped(self, state, loss, norm, rate) -> bool:
                self.losses.append(loss)
                return state.step % SCORED == 0

            def between(self, state) -> bool:
                """As the pack does, the last LoRA or its average is taken, whichever does better."""
                step = state.step
                if step % SCORED:
                    return True
                found["loss"][step] = round(statistics.fmean(self.losses[-SCORED:] or [0]), 5)
                found["held_out"][step] = last = round(scores.held_out_loss(model, held_out, PRESENT["timesteps"]), 5)
                with state.average.in_place():
                    found["average"][step] = mean = round(scores.held_out_loss(model, held_out, PRESENT["timesteps"]), 5)
                    if mean < last and step % SHOWN == 0:
                        found["pictures"][step] = likeness()
                if mean >= last and step % SHOWN == 0:
                    found["pictures"][step] = likeness()
                print(f"  {step:5}  held out {last:.4f}, average {mean:.4f}", flush=True)
                return True

        settings = loop.Settings(**{**PRESENT, **recipe.settings}, seed=seed)
        state = state_of(model, settings, recipe)
        if recipe.small:
            few = encoded(opened(name, Path(folder), 64)[0])
            loop.train(model, few, settings, int(recipe.small * recipe.steps), recipe.rate, Scoring(), None, state)
        loop.train(model, trained, settings, recipe.steps, recipe.rate, Scoring(), None, state)
    return found


def kept() -> dict[tuple[str, str, int], dict]:
    """What was run, by set, recipe and seed."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return {(of["set"], of["recipe"], of["seed"]): of for of in map(json.loads, lines)}


def best(of: dict) -> dict[int, float]:
    """The held-out loss by step, of the last LoRA or the average."""
    return {int(step): min(loss, of["average"][step]) for step, loss in of["held_out"].items()}


def table() -> None:
    """For each recipe and set, medians over the seeds that were run of it and of the present recipe: the step at which it
    reaches the present recipe's last score, and what it has come to at 500."""
    done = kept()
    print(f"{'recipe':18} {'set':20} seeds  reached at          held-out loss and PSNR (changed, kept) at 500")
    for recipe, name in itertools.product(RECIPES, SETS):
        seeds = [seed for seed in SEEDS if (name, recipe, seed) in done and (name, "present", seed) in done]
        if not seeds:
            continue
        at, loss, psnr = [], [], []
        for seed in seeds:
            wanted, of = best(done[name, "present", seed])[1000], done[name, recipe, seed]
            at.append(next((step for step, value in best(of).items() if value <= wanted), float("inf")))
            loss.append(best(of)[500])
            psnr.append([of["pictures"]["500"].get(key, 0.0) for key in ("psnr", "psnr_changed", "psnr_kept")])
        reached = f"{statistics.median(at):g} ({min(at):g} to {max(at):g})".replace("inf", "never")
        whole, changed, rest = (statistics.median(values) for values in zip(*psnr))
        print(f"{recipe:18} {name:20} {len(seeds):5}  {reached:18}  {statistics.median(loss):.4f}  {whole:.2f} ({changed:.2f}, {rest:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=RECIPES, action="append", help="run this one (all)")
    parser.add_argument("--set", choices=SETS, action="append", help="on this set (all)")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="run only each N-th")
    parser.add_argument("--steps", type=int, help="only so many, and keep nothing")
    parser.add_argument("--table", action="store_true", help="only print what there is")
    args = parser.parse_args()
    index, count = map(int, args.part.split("/"))
    for i, (seed, recipe, name) in enumerate(itertools.product(SEEDS, args.recipe or RECIPES, args.set or SETS)):
        if args.table or i % count != index - 1 or (not args.steps and (name, recipe, seed) in kept()):
            continue
        print(f"{name}, {recipe}, seed {seed}", flush=True)
        if args.steps:
            run(name, replace(RECIPES[recipe], steps=args.steps), seed)
            continue
        found = {"set": name, "recipe": recipe, "seed": seed, **run(name, RECIPES[recipe], seed)}
        with RESULTS.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(found) + "\n")
    table()


if __name__ == "__main__":
    import launch

    launch.choose_device()
    launch.load_pack()
    main()
