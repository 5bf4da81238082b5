"""Nothing that a training gave is lost: what cannot be saved is found before it, and what fails after it is kept."""
import json
import shutil
from types import SimpleNamespace

import pytest
import safetensors
import safetensors.torch
import torch


@pytest.fixture(scope="module")
def base(tiny):
    return tiny.flux()


@pytest.fixture
def train(trainer, tiny, base, tmp_path):
    """`train(name, on_step=...)`: three steps into folders of its own; the object has the ``result``, the ``steps`` that
    were taken and the folders."""
    once, job, places, listener = (trainer(f"run.{name}") for name in ("once", "job", "places", "listener"))
    dataset = trainer("host.collect").CollectedDataset(tuple(tiny.encoded(seed) for seed in (1, 2)))
    places = places.Places(*(str(tmp_path / name) for name in ("output", "loras", "encodings")),
                        (str(tmp_path / "user/runs"), str(tmp_path / "temp/runs")))  # fmt: skip

    def start(name="edit", on_step=lambda step: None, seed=0, learning_rate=1e-3, **settings):
        seen = SimpleNamespace(steps=0, phases=[], output=tmp_path / "output", loras=tmp_path / "loras", root=tmp_path)
        start.last = seen

        class Seeing(listener.Listener):
            def phase(self, text):
                seen.phases.append(text)

            def step(self, step, loss):
                seen.steps += 1
                on_step(step)

        wanted = trainer("loop").Settings(rank=2, seed=seed, **settings)
        seen.result = once.train_once(
            job.Job(base, None, None, dataset, wanted, 3, learning_rate, name, graph={}), places, Seeing()
        )
        return seen

    return start


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def in_place_of(folder):
    """A file where a folder is wanted: nothing can be written there, by nobody."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")


@pytest.mark.parametrize("name, file", [
    ("edit", "edit"), ("edit.safetensors", "edit"), ("v1.5.SafeTensors", "v1.5"), ("flux/edit", "flux/edit"),
    ("flux\\edit.safetensors", "flux/edit"), ("名" * 40, "名" * 40), ("nullify", "nullify"), ("x" * 120, "x" * 120),
])  # fmt: skip
def test_a_name_is_a_file_of_the_loras_folder(train, name, file):
    run = train(name)
    assert run.result.lora_name == f"{file}.safetensors" and run.result.report.startswith(f"{file}.safetensors: ")
    assert files(run.loras) == [f"{file}.safetensors"]
    assert train(name).steps == 0 and files(run.loras) == [f"{file}.safetensors"]


@pytest.mark.parametrize("name, why", [
    ("x" * 250, "250 bytes"), ("名" * 90, "too long|bytes"), ("nul", "device"), ("flux/CON.v2", "device"), ("", "needs a name"),
    (".safetensors", "needs a name"), ("../escape", "leads out.*path separators"), ("/tmp/escape", "root of a disk"), ("a:b", "colon|one of"),
    ("end.", "dot or a space"), ("what?", "one of"), ("a\u202eb", "invisible"),
], ids=ascii)  # fmt: skip
def test_a_name_that_some_system_cannot_keep_is_refused_at_once(train, name, why):
    with pytest.raises(ValueError, match=why):
        train(name)
    assert not train.last.phases


@pytest.mark.parametrize("place", ["output", "loras", "output/pairlora", "loras/flux"])
def test_a_folder_that_cannot_be_written_is_named_before_anything_long(train, tmp_path, place):
    in_place_of(tmp_path / place)
    with pytest.raises(OSError, match=rf"cannot be saved in .*{place.split('/')[0]}.*allow ComfyUI to write there"):
        train("flux/edit")
    assert not train.last.phases and files(tmp_path) == [place], "and nothing is left behind"


def test_a_full_disk_is_found_before_anything_long(train, tmp_path, monkeypatch):
    def full(tensors, file, *header):
        file.write_bytes(b"half")
        raise safetensors.SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left on device. Make room there"):
        train()
    assert not train.last.phases and not files(tmp_path)


def test_a_pack_that_wraps_the_loader_of_old_is_no_matter(train, monkeypatch):
    import comfy.lora

    load = comfy.lora.load_lora
    monkeypatch.setattr(comfy.lora, "load_lora", lambda lora, to_load: load(lora, to_load))
    assert train().steps == 3


def test_a_loader_that_leaves_layers_out_is_found_before_anything_long(train, tmp_path, monkeypatch):
    import comfy.lora

    load = comfy.lora.load_lora
    monkeypatch.setattr(comfy.lora, "load_lora", lambda *args, **options: dict(list(load(*args, **options).items())[1:]))
    with pytest.raises(RuntimeError, match="ComfyUI changes 19 layers, training 20"):
        train()
    assert not train.last.phases and not files(tmp_path)


def test_room_is_held_while_it_trains_and_given_back(train, tmp_path):
    held = []
    run = train(on_step=lambda step: held.extend(tmp_path.rglob("*.trial.safetensors")))
    assert len(held) == 3 and not list(tmp_path.rglob("*.trial*"))
    assert {"step3.json", "step3.safetensors"} < {path.name for path in run.output.glob("pairlora/*/*")}


def test_cancelling_keeps_where_it_stands(train, tmp_path):
    class Cancel(BaseException):
        pass

    def cancel(step):
        raise Cancel

    with pytest.raises(Cancel):
        train(on_step=cancel)
    assert not list(tmp_path.rglob("*.trial*")) and not files(tmp_path / "loras")
    assert train().steps == 2


@pytest.mark.parametrize("lost, kept", [(["output"], "user/runs"), (["output", "user"], "temp/runs")])
def test_an_output_folder_that_goes_away_in_training_loses_nothing(train, tmp_path, lost, kept):
    run = train(on_step=lambda step: step == 3 and [in_place_of(tmp_path / place) for place in lost])
    assert run.result.lora_name == "edit.safetensors" and run.result.lora
    assert f"could not be written, so the run is kept in {tmp_path / kept}" in run.result.report
    again = train()
    assert again.steps == 0 and again.result.report == run.result.report
    assert train("other").result.lora_name == "other.safetensors"


def test_a_loras_folder_that_goes_away_in_training_loses_nothing(train, tmp_path):
    run = train(on_step=lambda step: step == 3 and in_place_of(tmp_path / "loras"))
    (kept,) = tmp_path.glob("output/pairlora/edit-*/step3.safetensors")
    assert run.result.lora_name == str(kept) and f"It is kept as {kept}" in run.result.report
    assert train().steps == 0
    (tmp_path / "loras").unlink()
    again = train()
    assert (again.steps, again.result.lora_name) == (0, "edit.safetensors") and "kept as" not in again.result.report


def test_nowhere_to_save_says_so(train, tmp_path):
    with pytest.raises(OSError, match="cannot be saved in"):
        train(on_step=lambda step: step == 3 and [in_place_of(tmp_path / place) for place in ("output", "user", "temp")])


def test_a_lora_that_fails_the_proof_is_kept_but_never_handed_over(trainer, train, tmp_path, monkeypatch):
    def prove(model, file, lora):
        raise RuntimeError(f"{file}: the effect differs")

    with monkeypatch.context() as patch:
        patch.setattr(trainer("host.apply"), "prove", prove)
        with pytest.raises(RuntimeError, match="effect differs"):
            train()
    with pytest.raises(RuntimeError, match="effect differs.*kept as .*step3.safetensors; delete .*step3.json to try again"):
        train()
    assert train.last.steps == 0 and not files(tmp_path / "loras")
    next(tmp_path.glob("output/pairlora/edit-*/step3.json")).unlink()
    assert train().steps == 0 and files(tmp_path / "loras") == ["edit.safetensors"]


def test_a_note_that_cannot_be_written_loses_nothing(trainer, train, monkeypatch):
    run = trainer("run.record")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "json", SimpleNamespace(loads=json.loads, dumps=full))
    assert train().result.lora_name == "edit.safetensors"


def test_a_lora_that_was_deleted_comes_back_without_training(train, tmp_path):
    train()
    (tmp_path / "loras/edit.safetensors").unlink()
    assert train().steps == 0 and files(tmp_path / "loras") == ["edit.safetensors"]


def test_a_damaged_file_of_a_run_is_made_again(train, tmp_path):
    train()
    weights = of_the_run(tmp_path, "step3")
    content = weights.read_bytes()
    for damaged in (content[:-100], b"", content[:-9] + bytes(9)):
        weights.write_bytes(damaged)
        assert train().steps == 0 and weights.read_bytes()[-100:] == content[-100:]
    shutil.rmtree(weights.parent / "checkpoints")
    weights.write_bytes(b"")
    assert train().steps == 3 and weights.read_bytes()[-100:] == content[-100:]


def test_the_file_is_what_was_trained(train):
    run = train()
    assert all(torch.isfinite(tensor).all() for tensor in run.result.lora.values()) and run.steps == 3
    saved = safetensors.torch.load_file(run.loras / "edit.safetensors")
    assert saved.keys() == run.result.lora.keys() and all(torch.equal(saved[k], v) for k, v in run.result.lora.items())


@pytest.mark.parametrize("save_as, dtype, tolerance", [("bf16", torch.bfloat16, 4e-3), ("fp16", torch.float16, 5e-4)])
def test_the_file_may_be_half_as_large(train, base, trainer, save_as, dtype, tolerance):
    """Without training again, and each beside the other; what it adds to the layers is nearly what float32 adds."""
    whole, half = train(), train(save_as=save_as)
    assert half.steps == 0 and half.result.lora_name == "edit_02.safetensors"
    assert all(t.dtype == dtype for t in half.result.lora.values())
    sizes = [(run.loras / run.result.lora_name).stat().st_size for run in (whole, half)]
    tensors = [sum(t.nbytes for t in run.result.lora.values()) for run in (whole, half)]
    assert tensors[0] == 2 * tensors[1] and sizes[0] - sizes[1] == pytest.approx(tensors[1], rel=0.1)
    effects = []
    for run in (whole, half):
        lora = safetensors.torch.load_file(run.loras / run.result.lora_name)
        layers = trainer("host.apply").added(base, trainer("host.apply").with_lora(base, lora, 1.0))
        assert 2 * len(layers) == len(lora)
        effects.append(torch.cat([
            (lora[key].float() @ lora[key.replace("lora_up", "lora_down")].float()).flatten() for key in lora if "lora_up" in key
        ]))  # fmt: skip
    error = ((effects[1] - effects[0]).norm() / effects[0].norm()).item()
    print(f"the effect of a LoRA saved as {save_as} is off by {error:.2%}")
    assert error < tolerance
    assert train(save_as=save_as).result.lora_name == "edit_02.safetensors" and train().result.lora_name == "edit.safetensors"


def of_the_run(tmp_path, name):
    (file,) = tmp_path.glob(f"output/pairlora/*/{name}.safetensors")
    return file


def test_a_damaged_half_file_is_made_again(train, tmp_path):
    lora = train(save_as="bf16").result.lora
    for file in (of_the_run(tmp_path, "step3.bf16"), tmp_path / "loras/edit.safetensors"):
        file.write_bytes(file.read_bytes()[:-100])
    again = train(save_as="bf16")
    saved = safetensors.torch.load_file(again.loras / again.result.lora_name)
    assert again.steps == 0 and all(torch.equal(saved[key], value) for key, value in lora.items())


def test_a_half_file_of_an_earlier_training_is_made_again(train, tmp_path):
    train(save_as="bf16")
    half, weights = of_the_run(tmp_path, "step3.bf16"), of_the_run(tmp_path, "step3")
    safetensors.torch.save_file({key: value * 1.01 for key, value in safetensors.torch.load_file(half).items()}, half)
    weights.write_bytes(weights.read_bytes()[:-100])
    for _ in range(2):
        again = train(save_as="bf16")
        saved = safetensors.torch.load_file(again.loras / again.result.lora_name)
        assert again.steps == 0 and all(torch.equal(saved[key], value) for key, value in again.result.lora.items())


def test_no_room_for_the_half_file_loses_nothing(train, monkeypatch):
    save = safetensors.torch.save_file

    def full(tensors, file, *args):
        if ".bf16" in str(file):
            raise OSError(28, "No space left on device")
        save(tensors, file, *args)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    for steps in (3, 0):
        run = train(save_as="bf16")
        assert run.steps == steps and "No space left on device" in run.result.report and "It is kept as" in run.result.report


@pytest.mark.parametrize("value", [1e6, 1e30, 1e-7, float("nan")])
def test_float16_has_no_room_for_what_is_too_large_or_too_small(trainer, value):
    rounded, lora = trainer("lora.files").rounded, {"a": torch.ones(2), "zero": torch.zeros(2), "b": torch.full((2,), value)}
    with pytest.raises(ValueError, match="b has values too large or too small for fp16. Choose bf16"):
        rounded(lora, "fp16")
    assert value != value or rounded(lora, "bf16")["b"].dtype == torch.bfloat16


@pytest.mark.parametrize("learning_rate", [1e-5, 1e-7])
def test_a_lora_that_float16_cannot_hold_is_not_lost(train, learning_rate):
    """One that it can hold is proved as it is stored, though A and B are off by more than float32 allows."""
    for _ in range(2):  # once trained, once found
        if learning_rate == 1e-7:
            with pytest.raises(ValueError, match="too large or too small for fp16. Choose bf16"):
                train(learning_rate=learning_rate, save_as="fp16", warmup=0)
        else:
            assert train(learning_rate=learning_rate, save_as="fp16", warmup=0).result.lora_name == "edit.safetensors"
    again = train("other", learning_rate=learning_rate, save_as="bf16", warmup=0)
    assert again.steps == 0 and again.result.lora_name == "other.safetensors"


def test_a_file_says_nothing_of_how_another_is_stored(train):
    for save_as in ("bf16", "float32"):
        run = train(save_as=save_as)
        with safetensors.safe_open(run.loras / run.result.lora_name, "pt") as opened:
            settings = json.loads(opened.metadata()["pairlora_settings"])
        assert settings == {"rank": 2, "batch_size": 1, "seed": 0, "timesteps": "family default", "warmup": 20}


def test_a_path_that_is_too_long_for_windows_is_found_before_anything_long(train, windows_files, tmp_path, monkeypatch, trainer):
    monkeypatch.setattr(trainer("run.places"), "LONGEST", 100)
    longest = len(f"{tmp_path}/output/pairlora/edit-0123456789/checkpoints/best000000-of-3-00000000.safetensors.part")
    windows_files.longest = longest - 1
    with pytest.raises(OSError, match=rf"a path of {longest} characters, where Windows takes 100.*choose another name or folder"):
        train()
    assert not train.last.phases and not files(tmp_path)
    windows_files.longest = longest
    assert train(checkpoint_steps=1).steps == 3 and "edit.safetensors" in files(tmp_path / "loras")


def test_a_checkpoint_that_cannot_take_its_place_is_named_and_the_one_before_it_used(train, windows_files, trainer, monkeypatch, tmp_path):
    monkeypatch.setattr(trainer("data.moving"), "PAUSES", (0.02,))
    monkeypatch.setattr(trainer("run.keeper"), "COST", 0)
    held = []

    def hold(step):
        if step == 2 and not held:
            (folder,) = (tmp_path / "output/pairlora").glob("*/checkpoints")
            (folder / "step000002.json").touch()
            held.append(open(folder / "step000002.json", "rb"))  # noqa: SIM115

    with pytest.raises(OSError, match=r"step000002.json is open in another program.*Close it there.*kept of it goes up to step 1"):
        train(on_step=hold, checkpoint_steps=1)
    held[0].close()
    again = train(on_step=hold, checkpoint_steps=1)
    assert again.steps == 2 and again.result.lora_name == "edit.safetensors"


def test_what_a_run_has_handed_on_can_be_deleted_and_trained_on(train, windows_files, tmp_path):
    """Tensors of a file keep it in use."""
    run = train()
    (folder,) = (tmp_path / "output/pairlora").iterdir()
    (folder / "step3.safetensors").unlink()
    assert run.result.lora and not windows_files.held(str(folder))


def test_an_encoded_sample_that_cannot_take_its_place_leaves_nothing_behind(windows_files, trainer, tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(trainer("data.moving"), "PAUSES", (0.02,))
    store = trainer("host.store").Store(tmp_path)
    (tmp_path / "key.safetensors").write_bytes(b"damaged")
    with open(tmp_path / "key.safetensors", "rb"), pytest.raises(OSError, match="key.safetensors is open in another program"):
        store.put("key", tiny.encoded(1))
    assert files(tmp_path) == ["key.safetensors"]
    store.put("key", tiny.encoded(1))
    assert "key" in store
