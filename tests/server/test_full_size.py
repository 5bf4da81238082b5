"""Large models as users load them, with random weights, from a file by ComfyUI's own loader: whole on a GPU, with one
block of each kind on a CPU."""
import json
import math
import os
import shutil
import time
from dataclasses import dataclass

import pytest
import safetensors.torch
import torch
from running import node

from client import Client
from host import ROOT, Server

GIB = 1024**3
ROOM = 8 * GIB  # what training takes beside the weights at 1024 pixels with one reference, and some
FLUX = dict(
    image_model="flux", in_channels=16, out_channels=16, patch_size=2, vec_in_dim=768, context_in_dim=4096,
    hidden_size=3072, mlp_ratio=4.0, num_heads=24, axes_dim=[16, 56, 56], theta=10000, qkv_bias=True, guidance_embed=True,
)  # fmt: skip
QWEN = dict(image_model="qwen_image", in_channels=64, out_channels=16)


@dataclass(frozen=True)
class Case:
    """A model class of comfy.supported_models with its network, the numbers of blocks that it has in full, how its file
    stores them, and how it is loaded. ``text`` is the width of its text embeddings; its latents may have ``frames``."""

    config: str
    network: dict
    blocks: dict[str, int]
    text: int
    frames: bool = False
    stored: torch.dtype = torch.bfloat16
    quantised: bool = False
    weight_dtype: str = "default"
    loader: str = "UNETLoader"
    options: tuple[str, ...] = ()

    def size(self, file) -> int:
        """Bytes of the weights once they are loaded."""
        size = os.path.getsize(file)
        return size // 2 if self.weight_dtype.startswith("fp8") or self.loader != "UNETLoader" else size


KONTEXT = dict(config="Flux", network=FLUX, blocks={"depth": 19, "depth_single_blocks": 38}, text=4096)
CASES = {
    "bf16": Case(**KONTEXT),
    "fp16": Case(**KONTEXT, options=("--fp16-unet",)),
    "fp8": Case(**KONTEXT, weight_dtype="fp8_e4m3fn"),
    "quantised": Case(**KONTEXT, stored=torch.float8_e4m3fn, quantised=True),
    "packed as GGUF": Case(**KONTEXT, loader="PairLoRATestPackedLoader"),
    "Qwen in fp8": Case("QwenImage", QWEN, {"num_layers": 60}, 3584, True, torch.float8_e4m3fn),
}


@pytest.fixture(scope="module")
def base(host, tmp_path_factory):
    """A base directory for servers with the nodes that these tests need."""
    base = host.make_base(tmp_path_factory.mktemp("full_size"))
    (base / "models/diffusion_models").mkdir()
    shutil.copy(ROOT / "tests/server/full_size.py", base / "custom_nodes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAIRLORA_TESTS", str(ROOT / "tests"))
        yield base


@pytest.fixture
def written(comfy, base):
    """`written(case, whole)`: the file of a random model, until the test ends."""
    import comfy.supported_models

    import tiny

    file = base / "models/diffusion_models/random.safetensors"

    def write(case, whole):
        blocks = case.blocks if whole else dict.fromkeys(case.blocks, 1)
        extra = tiny.module("host.compat").flux_options() if case.config == "Flux" else {}
        config = getattr(comfy.supported_models, case.config)({**case.network, **blocks, **extra})
        config.set_inference_dtype(torch.bfloat16, None)
        model = config.get_model({}, "", device="meta").diffusion_model
        noise, start, tensors, layers = torch.randn(2**27, dtype=torch.float32).bfloat16(), 0, {}, {}
        for name, p in model.named_parameters():
            start = (start + 7919) % 2**20  # another part of the noise for every tensor: quicker than new noise
            value = noise[start : start + p.numel()].view(p.shape) * (p.shape[-1] ** -0.5 if p.ndim > 1 else 0.1)
            name = name.replace("y_norm.weight", "y_norm.scale")  # as in the real files
            value += "norm" in name
            if case.quantised and p.ndim == 2 and "blocks" in name:
                scale = value.abs().amax().float() / 448
                tensors[name], tensors[f"{name}_scale"] = (value / scale).to(case.stored), scale
                layers[name.removesuffix(".weight")] = {"format": "float8_e4m3fn"}
            else:
                tensors[name] = value.to(torch.bfloat16 if case.quantised else case.stored)
        metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})} if layers else None
        safetensors.torch.save_file(tensors, file, metadata)
        return file

    yield write
    file.unlink(missing_ok=True)


def settled(client) -> int:
    """Free bytes on the device once ComfyUI, asked to unload all models, has done so: /free only sets a flag."""
    client.post("/free", {"unload_models": True, "free_memory": True})
    seen = []
    for _ in range(120):
        time.sleep(0.5)
        seen.append(client.get("/system_stats")["devices"][0]["vram_free"])
        if len(seen) >= 6 and max(seen[-6:]) - min(seen[-6:]) < 64 * 2**20:
            break
    return seen[-1]


def trained(case: Case, base, client, steps=10, side=128, tokens=512):
    """One gradient on the model, as a vector, and what the server says of it and of some steps."""
    name = {"unet_name": "random.safetensors"}
    name |= {"weight_dtype": case.weight_dtype} if case.loader == "UNETLoader" else {}
    prompt = {
        "model": node(case.loader, **name),
        "demo": node("PairLoRADemoModel"),
        "samples": node("PairLoRATestSamples", side=side, tokens=tokens, width=case.text, frames=case.frames),
        "dataset": node("PairLoRACollect", conditioning=["samples", 0], latent=["samples", 1]),
        "gradient": node("PairLoRATestGradient", model=["model", 0], dataset=["dataset", 0], name="gradient.safetensors"),
        "train": node("PairLoRATrain", model=["model", 0], clip=["demo", 1], vae=["demo", 2], dataset=["dataset", 0],
                      steps=steps, learning_rate=1e-4, name="full_size"),
        "report": node("PreviewAny", source=["train", 3]),
    }  # fmt: skip
    shutil.rmtree(base / "output/pairlora", ignore_errors=True)
    texts, before = [], settled(client)
    outcome = client.run({k: v for k, v in prompt.items() if k not in ("train", "report")})
    seen = json.loads(outcome.outputs["gradient"]["text"][0])
    prompt.pop("gradient")
    outcome = client.run(prompt, lambda node, text: texts.append(text))
    report = outcome.outputs["report"]["text"][0]
    client.run({"empty": node("PreviewAny", source=str(before))})  # forgets the last prompt's models
    seen |= {"report": report, "given back": settled(client) - before}
    assert all(math.isfinite(float(text.split("loss ")[1].split()[0])) for text in texts if text.startswith("step "))
    print(case, json.dumps(seen))
    return safetensors.torch.load_file(base / "output" / "gradient.safetensors")["gradient"], seen


def streaming(total: float, size: float) -> list[list[str]]:
    """Server options that leave room for 60 % of ``size``, of ``total`` bytes of memory, for each way to stream."""
    reserve = ["--reserve-vram", f"{(total - 0.6 * size) / GIB:.1f}"]
    import comfy.cli_args

    dynamic = hasattr(comfy.cli_args, "enables_dynamic_vram")
    return [reserve, [*reserve, "--disable-dynamic-vram"]] if dynamic else [reserve]


@pytest.mark.gpu
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CASES)
def test_all_blocks_on_a_gpu(host, base, written, name):
    case, total = CASES[name], torch.cuda.get_device_properties(0).total_memory
    if total < (needed := (13 if case.config == "Flux" else 21) * GIB * (2 if name in ("bf16", "fp16") else 1) + ROOM):
        pytest.skip(f"it takes {needed / GIB:.0f} GiB of memory, this device has {total / GIB:.0f}")
    file = written(case, whole=True)

    def run(*options):
        with Server(host, *case.options, *options, base=base) as server:
            return trained(case, base, Client(server.url))

    loaded, seen = run("--highvram")
    assert seen["parameters"] > 11e9 and seen["unchanged"]
    assert torch.isfinite(loaded).all() and loaded.abs().sum() > 0
    for options in streaming(total, case.size(file)):
        streamed, also = run(*options)
        error = ((streamed - loaded).norm() / loaded.norm()).item()
        print(f"{name} {options}: gradients differ by {error:.1e}, {also['loaded']:.0%} loaded")
        assert error < 2e-2, "bf16 rounding"
        assert also["unchanged"] and also["loaded"] < 0.9
    assert seen["given back"] > -GIB


@pytest.fixture(scope="module")
def client(host, base):
    with Server(host, base=base) as server:
        yield Client(server.url)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["bf16", "packed as GGUF", "Qwen in fp8"])  # half a minute each; test_bases has all kinds
def test_one_block_of_each_kind_on_a_cpu(written, base, client, name):
    written(CASES[name], whole=False)
    loaded, seen = trained(CASES[name], base, client, steps=2, side=8, tokens=8)
    assert torch.isfinite(loaded).all() and loaded.abs().sum() > 0
    assert seen["unchanged"] and seen["parameters"] > 3e8
    assert "2 samples, 2 steps" in seen["report"]
