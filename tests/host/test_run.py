"""A run on disk: whatever ends it, going on is as if it had never stopped."""
import contextlib
import json
import shutil
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch

from host import ROOT


class Cancel(BaseException):
    """As ComfyUI's own."""


@pytest.fixture(scope="module")
def base(tiny):
    return tiny.flux()


@pytest.fixture(autouse=True)
def often(trainer, monkeypatch):
    """Scores every ten steps, and checkpoints however long they take."""
    monkeypatch.setattr(trainer("run.keeper"), "interval", lambda *_: 10)
    monkeypatch.setattr(trainer("run.keeper"), "COST", 0)


@pytest.fixture
def train(trainer, tiny, base, tmp_path):
    """`train(steps)` in one and the same run: an object with the ``result``, the ``steps`` that were taken, what was
    warned of and the ``folder``; ``on_step(step)`` may end it, as may ``stop_at`` a step. ``scored`` on two pairs."""
    once, job, places, listener = (trainer(f"run.{name}") for name in ("once", "job", "places", "listener"))
    collected = trainer("host.collect").CollectedDataset

    def of(seeds):
        return collected(tuple(tiny.encoded(seed) for seed in seeds))


    def start(steps, on_step=lambda step: None, stop_at=None, output="output", scored=False, learning_rate=1e-3, beginning=None, **settings):
        seen = SimpleNamespace(steps=[], losses={}, warnings=[], scores={}, stop=False)
        start.last = seen

        class Seeing(listener.Listener):
            def step(self, step, loss):
                seen.steps.append(step)
                seen.losses[step] = loss
                on_step(step)

            def score(self, step, loss):
                seen.scores[step] = loss

            def should_stop(self):
                return seen.steps[-1] == stop_at

            def warning(self, text):
                seen.warnings.append(text)

        held_out = of((8, 9) if scored is True else scored) if scored else None
        wanted = trainer("loop").Settings(**{"rank": 2, "batch_size": 2, "warmup": 3, **settings})
        where = places.Places(*(str(tmp_path / output / name) for name in ("output", "loras", "encodings")))
        seen.loras = tmp_path / output / "loras"
        with torch.inference_mode():  # as in ComfyUI's executor
            seen.result = once.train_once(
                job.Job(
                    base, None, None, of((1, 2, 3)), wanted, steps, learning_rate, "edit", held_out, beginning
                ), where, Seeing(),
            )  # fmt: skip
        seen.folder = max((tmp_path / output).glob("output/pairlora/edit-*"), key=lambda folder: folder.stat().st_mtime_ns)
        return seen

    return start


@pytest.fixture
def unbroken(train):
    """`unbroken(steps)`: the LoRA of a training in one go, in a folder of its own."""
    return lambda steps, **options: train(steps, output=f"unbroken{steps}", **options).result.lora


def cancel_at(step):
    def on_step(at):
        if at == step:
            raise Cancel

    return on_step


def cancelled(train, steps, at, **options):
    with pytest.raises(Cancel):
        train(steps, cancel_at(at), **options)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("at", range(1, 8))
def test_interrupted_and_resumed_equals_uninterrupted(train, unbroken, at):
    """At every step; a batch of 2 of 3 samples crosses an epoch at every second."""
    cancelled(train, 7, at)
    run = train(7)
    assert run.steps == list(range(at + 1, 8)) and same(run.result.lora, unbroken(7))
    assert train(7).steps == []


@pytest.mark.parametrize("scored", [False, True])
def test_cancelled_after_every_step(train, unbroken, scored):
    for at in range(1, 7):
        cancelled(train, 7, at, scored=scored)
        assert train.last.steps == [at]
    assert same(train(7, scored=scored).result.lora, unbroken(7, scored=scored))


def test_more_steps_go_on_and_fewer_are_found_or_trained_beside(train, unbroken):
    train(4)
    assert train(6).steps == [5, 6] and train(4).steps == [] and train(6).steps == []
    run = train(3)
    assert run.steps == [1, 2, 3] and same(run.result.lora, unbroken(3))
    run = train(8)
    assert run.steps == [7, 8] and same(run.result.lora, unbroken(8))
    assert train(5).steps == [1, 2, 3, 4, 5] and same(train(5).result.lora, unbroken(5))


def test_a_cooled_copy_does_not_hinder_going_on(train, unbroken):
    cooled = train(10, cooldown=40)
    assert same(cooled.result.lora, unbroken(10, cooldown=40)) and not same(cooled.result.lora, train(10).result.lora)
    assert train.last.steps == [7, 8, 9, 10], "from where the cooldown began"
    run = train(20, cooldown=50)
    assert run.steps == list(range(11, 21)) and same(run.result.lora, unbroken(20, cooldown=50))
    assert train(10, cooldown=40).steps == []


def test_a_cooldown_is_resumed(train, unbroken):
    cancelled(train, 10, 8, cooldown=40)
    run = train(10, cooldown=40)
    assert run.steps == [9, 10] and same(run.result.lora, unbroken(10, cooldown=40))


def test_stopped_it_hands_on_what_there_is_and_goes_on_later(train, unbroken):
    run = train(7, stop_at=3)
    assert run.steps == [1, 2, 3] and run.result.stopped and "3 steps" in run.result.report
    assert same(run.result.lora, unbroken(3))
    run = train(7)
    assert run.steps == [4, 5, 6, 7] and not run.result.stopped and same(run.result.lora, unbroken(7))


def test_a_file_stops_it_too(train):
    def on_step(step):
        if step == 1:
            (folder,) = train.last.loras.parent.glob("output/pairlora/edit-*")
            (folder / "stop").touch()

    run = train(500, on_step)
    assert run.result.stopped and 1 <= len(run.steps) < 500 and not (run.folder / "stop").exists()


def test_the_score_changes_nothing(train, unbroken):
    scored = train(25, scored=True, hand_on="last")
    assert scored.scores.keys() == {0, 10, 20, 25}
    assert same(scored.result.lora, unbroken(25))


def test_the_best_is_handed_on_and_kept(train):
    run = train(25, scored=True, learning_rate=3e-2)
    note = json.loads((run.folder / "step25.json").read_text())
    assert note["scores"][min(note["scores"], key=note["scores"].get)] <= min(run.scores[10], run.scores[20], run.scores[25])
    last = train(25, scored=True, learning_rate=3e-2, hand_on="last")
    assert last.steps == []
    if note["best"] != "step25.safetensors":
        assert not same(last.result.lora, run.result.lora)
        assert last.result.lora_name != run.result.lora_name


def damaged(content):
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    return {"flipped": bytes(flipped), "truncated": content[: len(content) // 2], "empty": b""}


@pytest.mark.parametrize("how", ["flipped", "truncated", "empty"])
def test_every_file_of_a_run_may_be_damaged(train, unbroken, how, tmp_path):
    """The checkpoint before is used, or else it is trained from the start; the LoRA is the same."""
    wanted, trials = unbroken(9, scored=True), 0
    cancelled(train, 9, 3, scored=True)
    cancelled(train, 9, 5, scored=True)
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "output", whole)
    files = [file.relative_to(whole) for file in sorted(whole.rglob("*")) if file.is_file()]
    for file in files:
        shutil.rmtree(tmp_path / "output")
        shutil.copytree(whole, tmp_path / "output")
        damage = tmp_path / "output" / file
        damage.write_bytes(damaged(damage.read_bytes())[how]) if damage.stat().st_size else None
        run, trials = train(9, scored=True), trials + 1
        assert same(run.result.lora, wanted), file
        aside = file.name.startswith("step000005")
        assert run.steps[0] == (4 if aside else 6), file
        assert bool(run.warnings) == aside and all(str(file.name).split(".")[0] in text for text in run.warnings), file
    print(f"{trials} damaged files of a run, {how}: all resumed to the same LoRA")


@pytest.mark.parametrize("nth", range(1, 14))
def test_a_full_disk_at_any_write_keeps_the_last_good_state(trainer, train, unbroken, monkeypatch, nth):
    places, written = trainer("run.places"), 0
    replace = places.os.replace

    def full(*args):
        nonlocal written
        written += 1
        if written == nth:
            raise OSError(28, "No space left on device")
        replace(*args)

    with monkeypatch.context() as patch:
        patch.setattr(places.os, "replace", full)
        with contextlib.suppress(OSError):
            train(6, checkpoint_steps=2)
    assert not list(train.last.loras.parent.rglob("*.part"))
    assert same(train(6, checkpoint_steps=2).result.lora, unbroken(6))


def test_a_full_disk_says_how_much_is_needed(trainer, train, monkeypatch):
    places = trainer("run.places")
    save = safetensors.torch.save_file

    def full(tensors, file, *header):
        if "state" in str(file):
            raise safetensors.SafetensorError("I/O error: No space left on device")
        save(tensors, file, *header)

    monkeypatch.setattr(places.safetensors.torch, "save_file", full)
    monkeypatch.setattr(places.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"step000002.state.safetensors cannot be written: .*needed there.*ended at step 2.*Make room"):
        train(6, checkpoint_steps=2)


def test_nan_ends_it_at_once_and_keeps_the_last_good_state(trainer, train, monkeypatch):
    loop = trainer("loop")
    gradient = loop.gradient
    with monkeypatch.context() as patch:
        patch.setattr(loop, "gradient", lambda *args: gradient(*args) if len(train.last.steps) < 3 else (float("nan"), 1.0))
        with pytest.raises(FloatingPointError, match="At step 4 .*Lower the learning rate.*checkpoint of step 2 is kept"):
            train(6, checkpoint_steps=2)
    assert train(6, checkpoint_steps=2).steps == [3, 4, 5, 6]


def test_the_same_training_waits_for_the_other(trainer, train, monkeypatch):
    """Who is waited for is said, and Cancel ends the waiting."""
    folder, waits = trainer("run.folder"), []
    monkeypatch.setattr(folder, "PAUSE", 0.01)

    def on_step(step):
        (path,) = train.last.loras.parent.glob("output/pairlora/edit-*")

        def wait(text):
            waits.append(text)
            raise Cancel

        with pytest.raises(Cancel), folder.Folder(path).locked(wait):
            pass

    train(1, on_step)
    assert "waiting: process" in waits[0]


def test_a_run_of_an_older_version_is_found(train):
    """Its folder held a LoRA and a note, and no setting that was unknown then is part of the key when it is off."""
    run = train(2, warmup=0)
    for name in ("run.json", "metrics.jsonl", "checkpoints", "lock"):
        path = run.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    note = json.loads((run.folder / "step2.json").read_text())
    old = {key: note[key] for key in ("files", "report", "memory", "seconds")}
    (run.folder / "step2.json").write_text(json.dumps({**old, "losses": [1.0, 1.0]}))
    again = train(2, warmup=0)
    assert again.steps == [] and same(again.result.lora, run.result.lora)


def test_a_run_of_a_newer_version_is_left_alone(train):
    run = train(2)
    note = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({**note, "layout": 99}))
    with pytest.raises(ValueError, match="newer PairLoRA"):
        train(3)


def test_another_version_of_comfyui_is_said(trainer, train, monkeypatch):
    train(2)
    monkeypatch.setattr(trainer("host.compat"), "VERSION", "99.0")
    run = train(3)
    assert run.steps == [3] and "goes on with 99.0" in run.result.report


def test_few_checkpoints_are_kept_and_of_those_before_some_loras(trainer, train, unbroken):
    """Eight, however many there were; to the last bit what was trained then."""
    run = train(30, checkpoint_steps=1, scored=True)
    names = {file.name.partition(".")[2]: file for file in (run.folder / "checkpoints").glob("step*")}
    assert sorted(file.stem for file in (run.folder / "checkpoints").glob("step*.json")) == ["step000029", "step000030"]
    assert names.keys() == {"json", "safetensors", "state.safetensors"}
    left, named = trainer("run.checkpoints").Checkpoints(run.folder / "checkpoints").left(), trainer("lora.files").named
    assert len(left) == 8
    gaps = [after - before for before, after in zip([0, *left], [*left, 30])]
    assert max(gaps) <= 2 * 30 / 9 + 1, gaps
    for step in (min(left), max(left)):
        assert same(named(safetensors.torch.load_file(left[step]), "FLUX.1"), unbroken(step, scored=True, hand_on="last"))


@pytest.mark.parametrize("most, every", [(8, 250), (8, 1), (3, 10), (1, 5)])
def test_what_is_left_of_a_growing_run_stays_even(trainer, most, every):
    spread, kept = trainer("run.checkpoints").spread, []
    for step in range(every, 100 * every, every):
        kept = spread([*kept, step], most, step + every)
        gaps = [after - before for before, after in zip([0, *kept], [*kept, step + every])]
        assert len(kept) == min(most, step // every) and max(gaps) <= max(2 * every, 3 * sum(gaps) / len(gaps)), kept


@pytest.mark.parametrize("nth", range(1, 7))
def test_killed_as_checkpoints_are_thinned(trainer, train, monkeypatch, nth):
    """At each file that is renamed or deleted: what is newest stays, and the next time nothing half done is left."""
    Checkpoints = trainer("run.checkpoints").Checkpoints
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "prune", lambda *_: None)
        run = train(4, checkpoint_steps=1)
    checkpoints, calls = Checkpoints(run.folder / "checkpoints"), 0

    def killed(act):
        def once(*args, **options):
            nonlocal calls
            calls += 1
            if calls == nth:
                raise Cancel
            return act(*args, **options)

        return once

    path = type(run.folder)
    with monkeypatch.context() as patch, pytest.raises(Cancel):
        for name in ("replace", "unlink"):
            patch.setattr(path, name, killed(getattr(path, name)))
        checkpoints.prune(4, 0)
    saved, _ = checkpoints.newest(4, 0, pytest.fail)
    assert saved.step == 4
    checkpoints.prune(4, 0)
    assert {file.name.split("-")[0] for file in (run.folder / "checkpoints").iterdir()} == {
        "lora000001", "lora000002", *(f"step00000{step}.{end}" for step in (3, 4) for end in ("json", "safetensors", "state.safetensors")),
    }  # fmt: skip


def test_a_damaged_checkpoint_is_named_and_those_that_nothing_goes_on_from_are_set_aside(trainer, train):
    stages, run = trainer("run.stages"), train(5, checkpoint_steps=1)
    lora, output = run.loras / run.result.lora_name, run.folder.parent.parent
    found = stages.stages(output, lora)
    assert [*found] == [1, 2, 3, 4, 5] and found[5] == run.folder / "step5.safetensors"
    assert [*stages.evenly(found, 2)][-1] == 5 and len(stages.evenly(found, 2)) == 2 and stages.evenly(found, 9) == found
    for step, file in found.items():
        assert stages.read(file).keys()
        for how, content in damaged(file.read_bytes()).items():
            whole = file.read_bytes()
            file.write_bytes(content)
            with pytest.raises(ValueError, match=f"{file.name} is damaged"):
                stages.read(file)
            aside = step < 4
            assert file.exists() != aside and (step in stages.stages(output, lora)) != aside
            file.write_bytes(whole)
    assert len([*(run.folder / "damaged").iterdir()]) == 3 * 3
    found[2].unlink()
    with pytest.raises(ValueError, match="no checkpoint of step 2 any more, but of 1, 3, 4, 5"):
        stages.keep(output, lora, 2)
    assert train(7, checkpoint_steps=1).steps == [6, 7]


def test_a_run_takes_twenty_times_its_lora_at_most(train, trainer):
    run, checkpoints = train(60, scored=True, checkpoint_steps=3, learning_rate=1e-2), trainer("run.checkpoints")
    lora = sum(t.nbytes for t in run.result.lora.values())
    tensors = sum(
        sum(t.nbytes for t in safetensors.torch.load_file(file).values()) for file in run.folder.rglob("*.safetensors")
    )
    print(f"a run takes {tensors / lora:.1f} times its LoRA")
    # each checkpoint has the LoRA, two moments, the average and perhaps a best LoRA of its own; the finished are two
    most = 5 * checkpoints.KEPT + checkpoints.OLDER + 2
    assert most == 20 and tensors <= most * lora


def test_checkpoints_take_two_percent_of_the_time(trainer, train, monkeypatch):
    """However slow they are written, and however often they are wanted; by a clock that only steps and writing move."""
    checkpoints, clock, written = trainer("run.checkpoints").Checkpoints, [0.0], []
    write = checkpoints.write

    def slow(self, place, *args):
        write(self, place, *args)
        clock[0] += 0.02
        written.append(place.step)

    def step(number):
        clock[0] += 0.03

    monkeypatch.setattr(trainer("run.keeper"), "COST", 50)
    monkeypatch.setattr(trainer("run.keeper"), "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(checkpoints, "write", slow)
    run = train(100, step, checkpoint_steps=1)
    assert written == [1, 35, 69, 100], "the first, after 50 times as long each, and the last"
    assert json.loads((run.folder / "step100.json").read_text())["spent"]["checkpoints"] == pytest.approx(0.06)


def test_the_learning_rate_rises_and_falls(trainer):
    loop = trainer("loop")
    settings = loop.Settings(warmup=4, cooldown=25)
    shares = [loop.share(step, 20, settings) for step in range(20)]
    assert shares[:5] == [0.25, 0.5, 0.75, 1.0, 1.0] and shares[14:] == [1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    assert {loop.share(step, 20, loop.Settings(warmup=0)) for step in range(20)} == {1.0}


def test_a_clock_that_is_set_back_is_no_matter(train, unbroken, monkeypatch):
    import time

    cancelled(train, 6, 4)
    monkeypatch.setattr(time, "time", lambda: 1.0)
    run = train(6)
    assert run.steps == [5, 6] and same(run.result.lora, unbroken(6))


def test_it_continues_from_a_lora(trainer, base, train):
    """Which is part of what the run is known by; its rank comes before that of the settings."""
    first = train(20, scored=True, hand_on="last")
    beginning = trainer("lora.start").read(base, first.loras / first.result.lora_name)
    run = train(2, scored=True, beginning=beginning, output="continued", rank=4)
    assert run.scores[0] == pytest.approx(first.scores[20], rel=1e-6), "it begins where the other ended"
    assert {t.shape for t in run.result.lora.values()} == {t.shape for t in first.result.lora.values()}
    assert train(2, scored=True, output="continued").steps == [1, 2]


@pytest.mark.parametrize("module, name, nth", [
    ("loop", "gradient", 1), ("loop", "gradient", 4), ("step", "backward", 4), ("run.keeper", "held_out_loss", 1),
    ("run.keeper", "held_out_loss", 2), ("run.keeper", "held_out_loss", 4), ("run.places", "flush", 5),
    ("run.checkpoints", "write_tensors", 3), ("run.record", "write_tensors", 1), ("host.apply", "prove", 1),
])  # fmt: skip
def test_cancelled_in_the_middle_of_anything(trainer, train, unbroken, tiny, base, monkeypatch, module, name, nth):
    """The base is as it was, and queueing again gives the same LoRA."""
    module, calls, before = trainer(module), 0, tiny.state(base)
    function = getattr(module, name)

    def cancel(*args, **options):
        nonlocal calls
        calls += 1
        if calls == nth:
            raise Cancel
        return function(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, cancel)
        with pytest.raises(Cancel):
            train(25, scored=True, checkpoint_steps=4)
    tiny.same(tiny.state(base), before)
    assert not list(train.last.loras.parent.rglob("*.part"))
    assert same(train(25, scored=True).result.lora, unbroken(25, scored=True))


@pytest.mark.parametrize("nth", [1, 2, 4])
def test_out_of_memory_in_a_score_is_no_end(trainer, train, unbroken, monkeypatch, nth):
    """More is recomputed from then on, and the score made again."""
    keeper, calls = trainer("run.keeper"), 0
    held_out_loss = keeper.held_out_loss

    def short(*args):
        nonlocal calls
        calls += 1
        if calls == nth:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return held_out_loss(*args)

    wanted = unbroken(25, scored=True)
    monkeypatch.setattr(keeper, "held_out_loss", short)
    run = train(25, scored=True)
    assert same(run.result.lora, wanted) and run.scores.keys() == {0, 10, 20, 25}
    assert "the memory ran out" in run.result.report


def test_out_of_memory_as_it_is_saved_loses_nothing(trainer, train, unbroken, monkeypatch):
    def short(*args):
        raise torch.cuda.OutOfMemoryError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(trainer("host.apply"), "prove", short)
        with pytest.raises(RuntimeError, match="out of memory"):
            train(5)
    run = train(5)
    assert run.steps == [] and same(run.result.lora, unbroken(5))


def test_a_step_that_was_cancelled_is_drawn_again(trainer, train, unbroken, monkeypatch):
    """The noise of a step that was drawn but not taken is not lost."""
    gradient = trainer("loop").gradient

    def cancel(*args):
        if len(train.last.steps) == 3:
            raise Cancel
        return gradient(*args)

    with monkeypatch.context() as patch:
        patch.setattr(trainer("loop"), "gradient", cancel)
        with pytest.raises(Cancel):
            train(6)
    run = train(6)
    assert run.steps == [4, 5, 6] and same(run.result.lora, unbroken(6))


@pytest.fixture(scope="module")
def demo(trainer):
    with torch.inference_mode():
        return trainer("host.demo_model").load()


@pytest.fixture
def train_demo(trainer, plain, demo, tmp_path):
    """`train_demo(folder, **settings)`: four steps of the demo model on a folder; the result, its folder and what was heard."""
    once, job, places, listener = (trainer(f"run.{name}") for name in ("once", "job", "places", "listener"))

    def opened(folder):
        with plain("cache").Cache() as cache:
            reading = plain("dataset").Reading(resolution=64, background="white")
            return plain("dataset").open_dataset(folder, reading, cache, lambda *_: None)[0]

    def start(folder, output="output", given=None, on_step=lambda folder, step: None, **settings):
        heard = SimpleNamespace(previews=[], warnings=[], copies=[])

        class Hearing(listener.Listener):
            def run(self, folder):
                self.folder = folder

            def step(self, step, loss):
                on_step(self.folder, step)

            def copy(self, step, name):
                heard.copies.append((step, name))

            def preview(self, step, pictures):
                heard.previews.append((step, pictures))

            def warning(self, text):
                heard.warnings.append(text)

        wanted = trainer("loop").Settings(**{"rank": 2, "timesteps": "uniform", **settings})
        where = places.Places(str(tmp_path / output), str(tmp_path / output / "loras"), str(tmp_path / "encodings"))
        with torch.inference_mode():
            work = job.Job(*demo, opened(folder), wanted, 4, 1e-3, "edit", given and opened(given))
            heard.result = once.train_once(work, where, Hearing())
        (heard.folder,) = (tmp_path / output).glob("pairlora/edit-*")
        return heard

    return start


SAMPLES = ROOT / "samples/background-removal"


def some_pairs(folder, numbers):
    folder.mkdir()
    for number in numbers:
        for part in ("start.png", "end.png"):
            shutil.copy(SAMPLES / f"photo{number:03}_{part}", folder)
    return folder


def test_pictures_and_scores_change_nothing(train_demo, tmp_path):
    pairs, given = some_pairs(tmp_path / "pairs", (1, 2)), some_pairs(tmp_path / "given", (3, 4))
    shown = train_demo(pairs, given=given)
    assert [(step, len(pictures)) for step, pictures in shown.previews] == [(0, 1), (2, 1), (4, 1)]
    assert "held-out pairs, PSNR" in shown.result.report and all(file.exists() for _, (file,) in shown.previews)
    hidden = train_demo(pairs, "hidden", given=given, previews=0, hand_on="last")
    alone = train_demo(pairs, "alone")
    last = safetensors.torch.load_file(shown.folder / "step4.safetensors")
    assert not hidden.previews and not alone.previews
    assert same(hidden.result.lora, last) and same(alone.result.lora, last)


def ask_at_first(folder, step):
    if step == 1:
        for what in ("preview", "copy"):
            (folder / what).touch()


def test_a_preview_and_a_copy_that_are_asked_for_change_nothing(trainer, demo, train_demo, tmp_path, monkeypatch):
    pairs, given = some_pairs(tmp_path / "pairs", (1, 2)), some_pairs(tmp_path / "given", (3,))
    wanted = train_demo(pairs, "wanted", given=given)
    monkeypatch.setattr(trainer("run.folder"), "PAUSE", 0)
    loras = tmp_path / "output/loras"
    loras.mkdir(parents=True)
    (loras / "edit_step1.safetensors").write_bytes(b"of the user")
    run = train_demo(pairs, given=given, on_step=ask_at_first)
    assert same(run.result.lora, wanted.result.lora)
    assert [step for step, _ in run.previews] == [0, 1, 2, 4] and not run.warnings
    assert run.copies == [(1, "edit_step1_02.safetensors")] and (loras / "edit_step1.safetensors").read_bytes() == b"of the user"
    assert {"preview", "copy", "copy.trial.safetensors"}.isdisjoint(file.name for file in run.folder.iterdir())
    with safetensors.safe_open(loras / "edit_step1_02.safetensors", "pt") as file:
        assert file.metadata()["ss_steps"] == "1"
    copied = safetensors.torch.load_file(loras / "edit_step1_02.safetensors")
    trainer("host.apply").check_loads(demo[0], loras / "edit_step1_02.safetensors", copied)
    assert copied.keys() == run.result.lora.keys() and not same(copied, run.result.lora)
    seen = trainer("run.history").history(run.folder, 0)
    assert seen["copies"] == ["edit_step1_02.safetensors"] and seen["inputs"] == [
        {"pair": 1, "input": "pair-1-input.png", "target": "pair-1-target.png"}
    ]
    assert [shown["step"] for shown in seen["previews"]] == [0, 1, 2, 4]
    assert seen["previews"][1]["pictures"] == [{"pair": 1, "after": "step000001-1.png"}]
    assert [of["step"] for of in seen["finished"]] == [4] and not seen["training"]


def test_a_copy_that_fails_ends_nothing(trainer, train_demo, tmp_path, monkeypatch):
    pairs = some_pairs(tmp_path / "pairs", (1, 2))
    wanted = train_demo(pairs, "wanted")
    monkeypatch.setattr(trainer("run.folder"), "PAUSE", 0)
    monkeypatch.setattr(trainer("run.copies"), "beside", lambda *_: (_ for _ in ()).throw(OSError("no room")))
    run = train_demo(pairs, on_step=ask_at_first)
    assert same(run.result.lora, wanted.result.lora) and not run.copies
    assert run.warnings[0] == "The LoRA of step 1 was not copied: no room" and "no held-out pairs to show" in run.warnings[1]


@pytest.mark.parametrize("error, again", [(torch.cuda.OutOfMemoryError("out of memory"), True), (RuntimeError("no such layer"), False)])
def test_a_preview_that_fails_is_left_out(trainer, train_demo, tmp_path, monkeypatch, error, again):
    """Without memory for one, the next is tried."""
    pairs, given = some_pairs(tmp_path / "pairs", (1, 2)), some_pairs(tmp_path / "given", (3,))
    wanted = train_demo(pairs, "wanted", given=given)
    sampled, calls = trainer("host.preview").sampled, []

    def failing(*args):
        calls.append(args)
        if len(calls) == 2:
            raise error
        return sampled(*args)

    monkeypatch.setattr(trainer("host.preview"), "sampled", failing)
    run = train_demo(pairs, given=given)
    assert [step for step, _ in run.previews] == ([0, 4] if again else [0])
    assert "The preview at step 2 was left out" in run.result.report and same(run.result.lora, wanted.result.lora)


def test_from_twelve_pairs_on_a_tenth_is_held_out_by_content(plain, train_demo, tmp_path):
    fewer, more = some_pairs(tmp_path / "fewer", range(1, 13)), some_pairs(tmp_path / "more", range(1, 24))
    run = train_demo(fewer, previews=0)
    assert "11 samples and 1 held out" in run.result.report
    assert "12 samples," in train_demo(fewer, "all", hold_out="none").result.report
    (kept,) = json.loads((run.folder / "run.json").read_text())["held_out"]
    again = train_demo(more, "more", previews=0)
    assert len(json.loads((again.folder / "run.json").read_text())["held_out"]) == 2
    chosen = plain("held_out").held_out
    content = {str(i): f"content {i}" for i in range(40)}
    for added in range(40, 49):
        bigger = {**content, str(added): f"content {added}"}
        assert len(chosen(content) - chosen(bigger)) <= 1 and len(chosen(bigger)) == 4
        assert {bigger[n] for n in chosen(bigger)} == {bigger[n] for n in chosen(dict(reversed(bigger.items())))}
    assert kept and not chosen({str(i): str(i) for i in range(11)}) and len(chosen({str(i): str(i) for i in range(500)})) == 8


def test_other_held_out_pairs_make_no_other_training(trainer, train, unbroken, tiny):
    """What was finished is found, and what was not goes on, with scores of its own."""
    run = train(10, scored=True)
    again = train(10, scored=(5, 6))
    assert again.steps == [] and "scored on other pairs" in again.result.report and same(again.result.lora, run.result.lora)
    run = train(25, scored=(5, 6), hand_on="last")
    assert run.steps[0] == 11 and run.scores.keys() == {10, 20, 25} and same(run.result.lora, unbroken(25, hand_on="last"))
    best = json.loads((run.folder / "step25.json").read_text())
    assert best["scored_on"] and min(best["scores"].values()) <= min(run.scores.values()) + 1e-6
    assert train(30).steps == [26, 27, 28, 29, 30], "and none at all"
    assert train(35, scored=True).steps == [31, 32, 33, 34, 35]
