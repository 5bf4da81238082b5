"""Putting a LoRA file on a model."""
from pathlib import Path

import comfy.utils
import folder_paths
from comfy_api.latest import io

from ..trainer.data import typed
from ..trainer.host import apply
from . import access


def resolve(lora: str) -> Path:
    """The file meant by a name from the loras folder, in which slashes of any system separate folders, or by an absolute
    path as people type it; raises ValueError when there is none."""
    meant = typed.path(lora)
    known = next(filter(None, (folder_paths.get_full_path("loras", name) for name in (lora, meant) if name)), None)
    path = Path(known or meant)
    if why := access.refusal(path):
        raise ValueError(why)
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
        try:
            weights = comfy.utils.load_torch_file(str(path), safe_load=True)
        except Exception as error:
            raise ValueError(f"{path} is damaged or no LoRA ({error}). Download it again, or train it again.") from error
        loaded = apply.with_lora(model, weights, strength)
        if not apply.added(model, loaded):
            raise ValueError(f"Nothing in {path.name} fits this model ({next(iter(weights), '')}). Was it trained on another?")
        return io.NodeOutput(loaded)
