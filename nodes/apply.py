"""Putting a LoRA file on a model."""
from pathlib import Path

import comfy.utils
import folder_paths
from comfy_api.latest import io

from ..trainer.host import apply


def resolve(lora: str) -> Path:
    """The file meant by a name from the loras folder or an absolute path; raises ValueError when there is none."""
    known = folder_paths.get_full_path("loras", lora) if lora else None
    path = Path(known or lora)
    if not known and not (path.is_absolute() and path.is_file()):
        raise ValueError(f"There is no LoRA {lora!r} in ComfyUI's loras folder, and it is not a file's full path.")
    if path.suffix.lower() != ".safetensors":
        raise ValueError(f"{path.name} is not a .safetensors file; other formats can run code when they are opened.")
    return path


class PairLoRALoad(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PairLoRALoad",
            display_name="Load LoRA (file)",
            category="PairLoRA",
            description="Puts a LoRA on the model. Unlike ComfyUI's loader it takes a linked lora_name.",
            inputs=[
                io.Model.Input("model"),
                io.String.Input(
                    "lora",
                    default="",
                    tooltip="A file of ComfyUI's loras folder, or a full path; link lora_name of Train Edit LoRA.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How much of the LoRA is used. Start with 1; 0 gives the base model.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def fingerprint_inputs(cls, model=None, lora=None, strength=None):
        try:
            stat = resolve(lora).stat()
            return f"{stat.st_mtime_ns} {stat.st_size}"
        except Exception:
            return ""

    @classmethod
    def execute(cls, model, lora, strength):
        path = resolve(lora)
        weights = comfy.utils.load_torch_file(str(path), safe_load=True)
        if not apply.fits(model, weights):
            raise ValueError(f"Nothing in {path.name} fits this model ({next(iter(weights), '')}). Was it trained on another?")
        return io.NodeOutput(apply.with_lora(model, weights, strength))
