"""The recipe of the tiny base model in samples/base: `python3 demo/host.py demo/make_base.py`.

Trains an autoencoder and then a reference-conditioned flow on pictures from shapes.py; the text encoder stays at its
seeded initial values. The flow learns two things: to give back its reference, and to put the shapes of further
references onto the first. It took 48 minutes on two CPU cores, which also had other work to do.
"""
import argparse
import importlib
import itertools
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import launch
import shapes

SEED = 0
CAPTIONS = {0: "give back the picture", 1: "put the shape on the picture", 2: "put the shapes on the picture"}


def initialise(module: torch.nn.Module) -> torch.nn.Module:
    """ComfyUI's layers leave their parameters uninitialised; give them PyTorch's defaults."""
    for layer in module.modules():
        for base in (torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.LayerNorm, torch.nn.Embedding):
            if isinstance(layer, base):
                base.reset_parameters(layer)
    for name, p in module.named_parameters():
        if name.endswith(("norm.scale", "norm.weight")):  # the RMS norms of queries and keys
            torch.nn.init.ones_(p)
    return module.requires_grad_(True)


def to_image(pictures: np.ndarray) -> torch.Tensor:
    """(n, height, width, 3) uint8 to (n, 3, height, width) in -1..1, as the autoencoder takes them."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean over the batch of the PSNR in dB of images in -1..1."""
    error = ((a.clamp(-1, 1) - b.clamp(-1, 1)) / 2).square().flatten(1).mean(1)
    return (-10 * error.log10()).mean().item()


def schedule(optimizer, steps: int, peak: float):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, steps, pct_start=0.05)


def report(name: str, step: int, steps: int, start: float, **figures: float) -> None:
    if step % 100 == 0 or step == steps - 1:
        text = "  ".join(f"{k} {v:.4f}" for k, v in figures.items())
        print(f"{name} {step + 1}/{steps}  {time.time() - start:.0f} s  {text}", flush=True)


@torch.no_grad()
def start_as_pca(vae, pictures: torch.Tensor) -> None:
    """Let the autoencoder begin as the best linear one of its size: the principal components of blocks of 8 x 8 pixels.

    The strided convolutions begin as space-to-depth and back, the blocks are identities from the start.
    """
    down = [layer for layer in vae.down_blocks if isinstance(layer, torch.nn.Conv2d)]
    up = [layer for layer in vae.up_blocks if isinstance(layer, torch.nn.ConvTranspose2d)]
    used = 12  # channels that carry the picture: 2 x 2 pixels of RGB
    for layer in (vae.in_block[1], vae.out_block[0]):
        layer.weight[:used] = torch.eye(used, layer.in_channels)[:, :, None, None]
        layer.bias[:used] = 0
    for narrow, wide in zip(down, reversed(up)):
        narrow.weight[: 4 * used], narrow.bias[: 4 * used] = 0, 0
        wide.weight[:, :used], wide.bias[:used] = 0, 0
        for dy, dx, c in itertools.product(range(2), range(2), range(used)):
            packed = (2 * dy + dx) * used + c
            narrow.weight[packed, c, 1 + dy, 1 + dx] = wide.weight[packed, c, 1 + dy, 1 + dx] = 1
        used *= 4
    features = vae.down_blocks[:-1](vae.in_block(pictures)).movedim(1, -1).flatten(0, 2)
    mean, (values, vectors) = features.mean(0), torch.linalg.eigh(features.T.cov())
    first = slice(-vae.c_latent, None)  # eigh sorts upwards
    # Between whitened, where detail counts as much as shape, and plain, where it drowns in the flow's noise.
    spread = values[first] ** 0.25
    spread *= (values[first] / spread**2).mean() ** 0.5
    to_latent, normalise = vae.down_blocks[-1]
    to_latent.weight.copy_((vectors[:, first] / spread).T[:, :, None, None])
    normalise.running_mean.copy_((vectors[:, first] / spread).T @ mean)
    vae.up_blocks[0][0].weight.copy_((vectors[:, first] * spread)[:, :, None, None])
    vae.up_blocks[0][0].bias.copy_(vectors[:, first] @ (vectors[:, first].T @ mean))


def train_vae(demo, steps: int) -> dict[str, torch.Tensor]:
    """The autoencoder."""
    torch.manual_seed(SEED)
    start, rng = time.time(), Random(SEED)
    vae = initialise(demo.autoencoder()).train(False)  # the normalisation of the latents stays as it is
    pool = to_image(np.stack([shapes.finish(shapes.scene(rng)) for _ in range(2400)]
                             + [p for _ in range(400) for p in shapes.combination(rng, 1)[1:]]))  # fmt: skip
    print(f"vae: {len(pool)} pictures drawn in {time.time() - start:.0f} s", flush=True)
    held_out, pool = pool[::50], pool[[i for i in range(len(pool)) if i % 50]]
    start_as_pca(vae, pool[:200])

    def quality() -> str:
        with torch.no_grad():
            latent = vae.encode(held_out)
            return f"{psnr(vae.decode(latent), held_out):.1f} dB on held-out pictures, latents of {latent.std():.2f}"

    print(f"vae: starts with {quality()}", flush=True)
    optimizer = torch.optim.AdamW(vae.parameters(), betas=(0.9, 0.99), weight_decay=1e-4)
    scheduler = schedule(optimizer, steps, 1e-3)
    for step in range(steps):
        image = pool[torch.randint(len(pool), (8,))]
        if step % 2:
            image = image.flip(3)
        latent = vae.encode(image)
        # The decoder must forgive small errors, since the flow's latents are never exact.
        loss = F.mse_loss(vae.decode(latent + 0.05 * torch.randn_like(latent)), image)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        report("vae", step, steps, start, loss=loss.item())
    print(f"vae: ends with {quality()}", flush=True)
    return vae.state_dict()


def make_clip(demo) -> dict[str, torch.Tensor]:
    """The text encoder at its seeded initial values: every word gets an embedding of its own."""
    torch.manual_seed(SEED)
    return initialise(demo.TinyClipModel(dtype=torch.float32)).state_dict()


@torch.no_grad()
def encode(vae, pictures: list[np.ndarray]) -> torch.Tensor:
    """Latents (n, 24, 16, 16) of pictures, through ComfyUI's VAE."""
    image = torch.from_numpy(np.stack(pictures)).float() / 255
    return torch.cat([vae.encode(part) for part in image.split(16)])


def train_flow(demo, vae, clip, steps: int, samples: int) -> dict[str, torch.Tensor]:
    """The reference-conditioned flow, on ``samples`` combinations of each number of shapes."""
    out_of_place_updates = importlib.import_module("pairlora.trainer.host.autograd").out_of_place_updates
    torch.manual_seed(SEED)
    start, rng = time.time(), Random(SEED + 1)
    flow = initialise(demo.flow_model({}).model.diffusion_model)
    for block in (*flow.double_blocks, *flow.single_blocks):  # adaLN-zero, https://arxiv.org/abs/2212.09748
        for name, p in block.named_parameters():
            if "mod" in name:
                torch.nn.init.zeros_(p)
    torch.nn.init.zeros_(flow.final_layer.linear.weight)
    data, texts = [], []
    for count, caption in CAPTIONS.items():
        drawn = [shapes.combination(rng, count)[: 1 if count == 0 else None] for _ in range(samples)]
        columns = [encode(vae, list(column)) for column in zip(*drawn)]
        data.append(columns if count else [columns[0], columns[0]])  # the reference itself is the target
        texts.append(clip.encode_from_tokens(clip.tokenize(caption), return_pooled=True))
    print(f"flow: {samples} samples of each kind drawn and encoded in {time.time() - start:.0f} s", flush=True)
    sampling = demo.flow_model({}).model.model_sampling
    optimizer = torch.optim.AdamW(flow.parameters(), 1e-3, betas=(0.9, 0.99), weight_decay=1e-2)
    scheduler = schedule(optimizer, steps, 2e-3)
    average = [p.detach().clone() for p in flow.parameters()]
    for step in range(steps):
        kind = step % len(data)
        *references, target = data[kind]
        text, pooled = texts[kind]
        picks = torch.randint(samples, (16,))
        x0, noise = target[picks], torch.randn(16, *target.shape[1:])
        sigma = sampling.sigma(torch.rand(16))
        x = sigma.view(-1, 1, 1, 1) * noise + (1 - sigma.view(-1, 1, 1, 1)) * x0
        with out_of_place_updates():
            latents = [reference[picks] for reference in references]
            velocity = flow(x, sigma, text.expand(16, -1, -1), pooled.expand(16, -1), ref_latents=latents)
            loss = F.mse_loss(velocity, noise - x0)
            optimizer.zero_grad()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        torch._foreach_lerp_(average, [p.detach() for p in flow.parameters()], 0.005)
        report("flow", step, steps, start, **{f"loss{kind}": loss.item()})
    with torch.no_grad():
        for p, a in zip(flow.parameters(), average):
            p.copy_(a)
    return flow.state_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae-steps", type=int, default=1000)
    parser.add_argument("--flow-steps", type=int, default=3500)
    parser.add_argument("--samples", type=int, default=2500, help="pictures drawn for each number of shapes")
    parser.add_argument("--keep-vae", action="store_true", help="take the autoencoder of the existing file")
    args = parser.parse_args()
    start = time.time()
    launch.choose_device()
    launch.load_pack()
    demo = importlib.import_module("pairlora.trainer.host.demo_model")
    if args.keep_vae:
        existing = load_file(demo.WEIGHTS)
        vae = {k[len(demo.VAE):]: v.float() for k, v in existing.items() if k.startswith(demo.VAE)}
    else:
        vae = train_vae(demo, args.vae_steps)
    parts = {demo.VAE: vae, demo.CLIP: make_clip(demo)}
    save(parts, demo.WEIGHTS)
    with torch.no_grad():
        clip = demo.clip_model(parts[demo.CLIP])
    parts[demo.FLOW] = train_flow(demo, demo.vae_model(vae), clip, args.flow_steps, args.samples)
    save(parts, demo.WEIGHTS)
    print(f"{demo.WEIGHTS}: {demo.WEIGHTS.stat().st_size / 1e6:.1f} MB, made in {(time.time() - start) / 60:.0f} minutes")


def save(parts: dict[str, dict[str, torch.Tensor]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({prefix + k: v.half().contiguous() for prefix, part in parts.items() for k, v in part.items()}, path)


if __name__ == "__main__":
    main()
