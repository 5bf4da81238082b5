"""The tiny base model: its autoencoder, and what it does without a LoRA."""
import numpy as np
import pytest
import torch
from PIL import Image

from figures import psnr
from host import ROOT


@pytest.fixture(scope="module")
def pictures():
    files = sorted((ROOT / "samples").glob("*/*.png"))
    return [np.asarray(Image.open(file).convert("RGB"), dtype=np.float32) / 255 for file in files]


@pytest.fixture(scope="module")
def loaded(trainer):
    import torch

    with torch.inference_mode():
        yield trainer("host.demo_model").load()


def test_the_autoencoder_keeps_the_samples(loaded, pictures):
    import torch

    vae = loaded[2]
    batch = torch.from_numpy(np.stack(pictures))
    decoded = torch.cat([vae.decode(vae.encode(part)) for part in batch.split(16)]).numpy()
    result = psnr(list(decoded), pictures)
    print(f"reconstruction of {len(pictures)} sample images: {result:.1f} dB")
    assert result >= 28


def test_the_base_gives_back_its_reference(loaded, pictures, trainer):
    """Through ComfyUI's own conditioning and sampler, on pictures it never saw."""
    import nodes

    model, clip, vae = loaded
    families, results = trainer("host.families"), []
    held_out = sorted((ROOT / "samples").glob("*held-out/*_start.png"))
    for file in held_out:
        image = np.asarray(Image.open(file).convert("RGB"), dtype=np.float32) / 255
        image = torch.from_numpy(image)[None]
        (latent,) = nodes.VAEEncode().encode(vae, image)
        positive = families.family_of(model.model).condition(
            clip, vae, families.Edit("remove the background", [image], image.shape[1:3])
        )
        (out,) = nodes.common_ksampler(model, 0, 20, 1.0, "euler", "simple", positive, positive, latent)
        results.append(psnr([vae.decode(out["samples"])[0].numpy()], [image[0].numpy()]))
    print(f"the base's copy of {len(held_out)} held-out inputs: {np.mean(results):.1f} dB")
    assert np.mean(results) >= 24
