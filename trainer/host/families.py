"""How a base model takes references."""
import comfy.model_management
import comfy.model_patcher
import torch

from .forward import Conditioned, predict_x0


def check_reads_references(model: comfy.model_patcher.ModelPatcher, a: Conditioned, b: Conditioned) -> None:
    """Compare one forward for a sample with that for the same sample with other reference images.

    Found by trying, not by the model's class, since plain Flux and Kontext share one.

    Raises:
        ValueError: the model gives the same for both, so it could never learn an edit.
    """
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        noise = torch.randn(a.x0.shape, generator=torch.Generator().manual_seed(0)).to(a.x0)
        sigma = model.model.model_sampling.percent_to_sigma(0.5)
        sigma = torch.tensor([float(sigma)], device=a.x0.device)
        if torch.equal(predict_x0(model, [a], noise, sigma), predict_x0(model, [b], noise, sigma)):
            raise ValueError(
                f"This model ({type(model.model).__name__}) takes no reference images, so it cannot learn an edit from "
                "pairs. Load an editing model: FLUX.1 Kontext, FLUX.2, Qwen-Image-Edit or OmniGen2."
            )
