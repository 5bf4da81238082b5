"""What lies between queueing and the first step of a FLUX.1 Kontext of 12 billion parameters: what the host's CPU does is
measured on a model of the real shapes without storage, the rest is counted."""
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import comfy.ops
import memory
import torch
import zoo
from comfy.ldm.modules.diffusionmodules.model import Encoder
from comfy.text_encoders import t5
from loops import Case, Pack

from launch import ROOT
from tiny import module

RATE = 250e12  # floating-point operations a second, a quarter of what an H100's data sheet says for bf16
BUS = 20e9  # bytes a second from system memory to the card
ROOM = 30 * 2**30  # bytes of a card on which the plan has to choose
SAMPLES, SIDE, RANK = 24, 1024, 16
WORDS = 252  # with the four tokens that the zoo's text encoder adds, FLUX.1 Kontext's 256
ENCODERS = 220 + 197 + 244  # tensors of T5-XXL's encoder, CLIP-L and the VAE

# Of a new process: what importing peft costs after all that ComfyUI has imported itself.
PEFT = """
import sys, time
sys.path[:0] = [sys.argv[2]]
import launch
launch.prepare(sys.argv[1])
launch.choose_device()
import comfy.sd
launch.load_pack()
from pairlora.trainer.lora import inject
start = time.process_time()
inject._imported()
print("seconds", time.process_time() - start)
"""


def parts() -> list[tuple[str, float, float, str]]:
    """What each part takes: its name, seconds cold (the first queue of a process) and warm (the same model and pairs with
    other settings), and how that is known."""
    model, kind, sample = kontext()
    found = []

    def add(name: str, cold: float, warm: float, how: str = "measured") -> None:
        found.append((name, cold, warm, how))

    tensors = len(model.model.diffusion_model.state_dict())
    known = timed(lambda: module("host.fingerprint").fingerprint(model))
    add("fingerprint of the model", known, known, f"measured: {tensors} tensors, 16 values each, without reading a disk")
    others = known * ENCODERS / tensors
    add("fingerprint of the encoders", others, others, f"by that, for their {ENCODERS} tensors")
    add("peft import", peft_import(), 0.0)
    untried = layers(model)
    add("LoRA layers, twice", 2 * untried, 2 * untried)
    add("trial of saving and loading", *2 * [trial(model)], "measured, without waiting for the disk")
    add("encoded samples from the disk", *2 * [stored(sample)], f"measured: {SAMPLES} pairs, all looked at for the largest")
    cold, warm, counted, again = planned(model, sample)
    add("plan", cold, warm)
    each, bytes_ = encoding()
    add("encoding", SAMPLES * each / RATE + bytes_ / BUS, 0.0,
        f"{SAMPLES} pairs of {each / 1e12:.0f} TFLOP, and text encoder and VAE to the card")  # fmt: skip
    add("weights to the card", model.model_size() / BUS, 0.0, f"{model.model_size() / 1e9:.0f} GB at {BUS / 1e9:.0f} GB/s")
    passes, of_one = forwards(), again.flops - counted.flops
    add("checks", *2 * [passes * of_one / RATE],
        f"{passes} forward passes of {of_one / 1e12:.0f} TFLOP at {RATE / 1e12:.0f} TFLOP/s")  # fmt: skip
    return found


def kontext():
    """The model, its kind and a sample of 1024 pixels with one reference."""
    _, kind, _ = next(found for found in memory.kinds() if found[0] == "FLUX.1 Kontext")
    model = memory.model(kind, "bf16")
    caption = " ".join(["word"] * WORDS)
    sample = zoo.encoded(kind, 0, 1, size=(SIDE, SIDE), caption=caption, patcher=model)
    network = model.model.diffusion_model
    weights = {name: torch.zeros((), dtype=w.dtype).expand(w.shape) for name, w in network.state_dict().items()}
    with torch.inference_mode(False):
        network.load_state_dict(weights, assign=True)
    return model, kind, sample


def timed(work: Callable[[], object], times: int = 3) -> float:
    """CPU seconds, the median; what is written to the disk and read from it passes through memory only."""
    seconds = []
    for _ in range(times):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def peft_import() -> float:
    command = [sys.executable, "-c", PEFT, str(Path(comfy.__path__[0]).parent), str(ROOT / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split("seconds")[-1])


def layers(model) -> float:
    inject = module("lora.inject")
    inject.untrained(model.model.diffusion_model, RANK)  # peft is imported
    return timed(lambda: inject.untrained(model.model.diffusion_model, RANK))


def trial(model) -> float:
    run, files = module("run.record"), module("lora.files")
    untrained = module("lora.inject").untrained(model.model.diffusion_model, RANK)
    family = module("host.families").family_of(model.model).name

    def tried() -> None:
        with tempfile.TemporaryDirectory() as folder:
            record = run.Record(folder, "trial", "0" * 10, 1)
            with record.tried(files.named(untrained, family), str(Path(folder, "loras")), "trial") as file:
                module("host.apply").check_loads(model, file, untrained)

    return timed(tried)


def stored(sample) -> float:
    store_of, largest_of = module("host.store"), module("loop").largest_of
    with tempfile.TemporaryDirectory() as folder:
        store = store_of.Store(Path(folder))
        keys = {f"sample{i}": f"{i}" for i in range(SAMPLES)}
        for key in keys.values():
            store.put(key, sample)
        return timed(lambda: largest_of(store_of.Stored(store, keys)))


def encoding() -> tuple[int, int]:
    """Floating-point operations that T5-XXL and the encoder of FLUX.1's VAE need for a pair, and the bytes of their weights."""
    config = json.loads(Path(t5.__file__).with_name("t5_config_xxl.json").read_text(encoding="utf-8"))
    with torch.device("meta"), torch.no_grad():
        text = t5.T5(config, torch.bfloat16, "meta", comfy.ops.manual_cast)
        vae = Encoder(ch=128, out_ch=3, ch_mult=(1, 2, 4, 4), num_res_blocks=2, attn_resolutions=[], in_channels=3,
                      resolution=256, z_channels=16)  # fmt: skip
        ledger = module("plan.ledger").Ledger("meta")
        free = mock.patch("comfy.model_management.get_free_memory", return_value=ROOM)  # asked by the VAE's attention
        with module("host.attention").differentiable(), free, ledger:
            text(torch.zeros(1, WORDS + 4, dtype=torch.long), None)
            for _ in ("reference", "target"):
                vae(torch.zeros(1, 3, SIDE, SIDE))
    return ledger.now.flops, 2 * sum(p.numel() for network in (text.encoder, vae) for p in network.parameters())


def planned(model, sample):
    """Seconds to find the plan, and to find it again; and what was counted with nothing and with all recomputed."""
    plan, simulate, recompute = module("plan"), module("plan.simulate"), module("host.recompute")
    device, weights = torch.device("cuda"), model.model_size()

    def find():
        simulation = plan.Simulation(model, sample, 1, RANK, device)
        plan.cheapest(simulation, weights, ROOM, device)
        return simulation

    def anew() -> None:
        simulate.known.clear()
        find()

    cold, warm, simulation = timed(anew), timed(find), find()
    return cold, warm, simulation.count(recompute.NOTHING), simulation.count(recompute.Recompute(simulation.blocks))


def forwards() -> int:
    """Forward passes from loading the model to the first step."""
    pack = Pack(Case(hidden=128, depth=(1, 1), tokens=64, samples=1))
    forward = module("host.forward")
    with mock.patch.object(forward, "prediction", side_effect=forward.prediction) as calls:
        module("encoding").check(pack.model, pack.samples[0], 0)
        pack.run(1, lambda: None)
    return calls.call_count
