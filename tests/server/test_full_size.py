"""FLUX.1 Kontext as users load it, with random weights, from a file by ComfyUI's own loader: as large as it is on a GPU,
with one block of each kind on a CPU."""
import json
import math
import os
import shutil

import pytest
import safetensors.torch
import torch
from running import node

from client import Client
from host import ROOT, Server

GIB = 1024**3


@pytest.fixture(scope="module")
def weights(comfy, host, tmp_path_factory):
    """`weights(depth)`: a base directory with a random FLUX.1 Kontext of so many double and single blocks, in bf16."""
    import comfy.supported_models

    import tiny

    made = {}

    def write(depth):
        if depth in made:
            return made[depth]
        config = comfy.supported_models.Flux(dict(
            image_model="flux", in_channels=16, out_channels=16, patch_size=2, vec_in_dim=768, context_in_dim=4096,
            hidden_size=3072, mlp_ratio=4.0, num_heads=24, depth=depth[0], depth_single_blocks=depth[1],
            axes_dim=[16, 56, 56], theta=10000, qkv_bias=True, guidance_embed=True,
            **tiny.module("host.compat").flux_options(),
        ))  # fmt: skip
        config.set_inference_dtype(torch.bfloat16, None)
        model = config.get_model({}, "", device="meta").diffusion_model
        noise, start, tensors = torch.randn(2**26, dtype=torch.float32).bfloat16(), 0, {}
        for name, p in model.named_parameters():
            start = (start + 7919) % 2**20  # another part of the noise for every tensor, which is quicker than new noise
            value = noise[start : start + p.numel()].view(p.shape) * (p.shape[-1] ** -0.5 if p.ndim > 1 else 0.1)
            name = name.replace("y_norm.weight", "y_norm.scale")  # as in the real files
            tensors[name] = (value + ("norm" in name)).to(torch.bfloat16)
        base = host.make_base(tmp_path_factory.mktemp("full_size"))
        (base / "models/diffusion_models").mkdir()
        safetensors.torch.save_file(tensors, base / "models/diffusion_models/flux1-kontext-random.safetensors")
        shutil.copy(ROOT / "tests/server/full_size.py", base / "custom_nodes")
        made[depth] = base
        return base

    return write


@pytest.fixture
def trained(host, monkeypatch):
    """`trained(base, dtype, options)`: what a server with these options says of ten steps and of one gradient."""
    monkeypatch.setenv("PAIRLORA_TESTS", str(ROOT / "tests"))

    def run(base, dtype, *options, steps=10, side=128, tokens=512):
        prompt = {
            "model": node("UNETLoader", unet_name="flux1-kontext-random.safetensors", weight_dtype=dtype),
            "demo": node("PairLoRADemoModel"),
            "samples": node("PairLoRATestSamples", side=side, tokens=tokens),
            "dataset": node("PairLoRACollect", conditioning=["samples", 0], latent=["samples", 1]),
            "gradient": node("PairLoRATestGradient", model=["model", 0], dataset=["dataset", 0], name="gradient.safetensors"),
            "train": node("PairLoRATrain", model=["model", 0], clip=["demo", 1], vae=["demo", 2], dataset=["dataset", 0],
                          steps=steps, learning_rate=1e-4, name="full_size"),
            "report": node("PreviewAny", source=["train", 3]),
        }  # fmt: skip
        shutil.rmtree(base / "output/pairlora", ignore_errors=True)
        with Server(host, *options, base=base) as server:
            client, texts = Client(server.url), []

            def free():
                client.post("/free", {"unload_models": True, "free_memory": True})
                return client.get("/system_stats")["devices"][0]["vram_free"]

            before = free()
            outcome = client.run({k: v for k, v in prompt.items() if k not in ("train", "report")})
            seen = json.loads(outcome.outputs["gradient"]["text"][0])
            prompt.pop("gradient")
            outcome = client.run(prompt, lambda node, text: texts.append(text))
            report = outcome.outputs["report"]["text"][0]
            client.run({"empty": node("PreviewAny", source="")})  # forgets the last prompt's models
            seen |= {"report": report, "given back": free() - before}
            steps = [text for text in texts if text.startswith("step ")]
            assert all(math.isfinite(float(text.split("loss ")[1].split()[0])) for text in steps)
            print(dtype, options, json.dumps(seen))
        lora = safetensors.torch.load_file(base / "output" / "gradient.safetensors")["gradient"]
        return lora, seen

    return run


def streaming(total: float, size: float) -> list[list[str]]:
    """Server options that leave room for 60 % of ``size``, of ``total`` bytes of memory, for each way to stream."""
    reserve = ["--reserve-vram", f"{(total - 0.6 * size) / GIB:.1f}"]
    import comfy.cli_args

    dynamic = hasattr(comfy.cli_args, "enables_dynamic_vram")
    return [reserve, [*reserve, "--disable-dynamic-vram"]] if dynamic else [reserve]


@pytest.mark.gpu
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dtype", ["default", "fp8_e4m3fn"])
def test_twelve_billion_parameters_on_a_gpu(weights, trained, dtype):
    base = weights((19, 38))
    loaded, seen = trained(base, dtype, "--highvram")
    assert seen["parameters"] > 11e9 and seen["unchanged"]
    assert torch.isfinite(loaded).all() and loaded.abs().sum() > 0
    size = os.path.getsize(base / "models/diffusion_models/flux1-kontext-random.safetensors")
    size = size // 2 if dtype.startswith("fp8") else size
    total = torch.cuda.get_device_properties(0).total_memory
    for options in streaming(total, size):
        streamed, also = trained(base, dtype, *options)
        error = ((streamed - loaded).norm() / loaded.norm()).item()
        print(f"{dtype} {options}: gradients differ by {error:.1e}, {also['loaded']:.0%} loaded")
        assert error < 2e-2, "bf16 rounding"
        assert also["unchanged"] and also["loaded"] < 0.9
    assert seen["given back"] > -GIB


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_block_of_each_kind_on_a_cpu(weights, trained):
    loaded, seen = trained(weights((1, 1)), "default", steps=2, side=8, tokens=8)
    assert torch.isfinite(loaded).all() and loaded.abs().sum() > 0
    assert seen["unchanged"] and seen["parameters"] > 4e8
    assert "2 samples, 2 steps" in seen["report"]
