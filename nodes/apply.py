"""Putting a LoRA file on a model."""
import logging
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io
from server import PromptServer

from ..trainer.data import typed
from ..trainer.data.text import counted
from ..trainer.host import apply
from ..trainer.lora import fetch
from . import access


def resolve(lora: str) -> Path:
    """The file meant by a name from the loras folder, in which slashes of any system separate folders, or by an absolute
    path as people type it; raises ValueError when there is none."""
    meant = typed.path(lora)
    known = next(filter(None, (folder_paths.get_full_path("loras", name) for name in (lora, meant) if name)), None)
    path = Path(known or meant)
    if path.is_absolute() and (why := access.refusal(path)):
        raise ValueError(why)
    if not known and not (path.is_absolute() and path.is_file()):
        raise ValueError(f"There is no LoRA {lora!r} in ComfyUI's loras folder, and it is not a file's full path.")
    if path.suffix.lower() != ".safetensors":
        raise ValueError(f"{path.name} is not a .safetensors file; other formats can run code when they are opened.")
    return path


def fetched(url: str) -> fetch.Fetched:
    """The file at an https address, with progress on the node; raises ValueError, or ComfyUI's interrupt on its Cancel."""
    folder = Path(folder_paths.get_folder_paths("loras")[0], "downloaded")
    bar = comfy.utils.ProgressBar(1000)

    def told(done: int, of: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if of:
            bar.update_absolute(done * 1000 // of)

    if found := fetch.fetched(url, folder, told):
        return found
    if why := access.url_refusal(url):
        raise ValueError(why)
    return fetch.fetch(url, folder, told)


def say(lines: list[str], node: str) -> None:
    """Show them on the running node."""
    server = PromptServer.instance
    if lines and server.client_id is not None:  # else every page would be told
        server.send_progress_text("\n".join(lines), node, server.client_id)


class PairLoRALoad(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PairLoRALoad",
            display_name="Load LoRA (file or URL)",
            category="PairLoRA",
            description="Puts a LoRA on the model. Unlike ComfyUI's loader it takes a linked lora_name.",
            inputs=[
                io.Model.Input("model"),
                io.String.Input(
                    "lora",
                    default="",
                    tooltip="A file of ComfyUI's loras folder, a full path or an https address of a .safetensors file; "
                    "link lora_name of Train Edit LoRA.",
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
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, model=None, lora=None, strength=None):
        try:
            if fetch.is_address(lora):  # what comes from there is known by its hash
                return ""
            stat = resolve(lora).stat()
            return f"{stat.st_mtime_ns} {stat.st_size}"
        except Exception:
            return ""

    @classmethod
    def execute(cls, model, lora, strength):
        came = fetched(lora) if fetch.is_address(lora) else None
        path = came.file if came else resolve(lora)
        try:
            weights = comfy.utils.load_torch_file(str(path), safe_load=True)
        except Exception as error:
            raise ValueError(f"{path} is damaged or no LoRA ({error}). Download it again, or train it again.") from error
        text = {key: weights.pop(key) for key in apply.of_text_encoder(weights)}
        loaded = apply.with_lora(model, weights, strength)
        if not (layers := apply.added(model, loaded)):
            first = next(iter(weights or text), "")
            raise ValueError(f"Nothing in {path.name} fits this model ({first}). Was it trained on another?")
        said = [f"{'Fetched' if came.new else 'Was fetched before'}: {path.name}", f"sha256 {came.sha256}"] if came else []
        if text:
            said.append(f"{counted(len(text), 'tensor')} of {path.name} are for a text encoder, which this node leaves as it is. "
                        "ComfyUI's own loader for model and CLIP takes them too.")  # fmt: skip
        if left := apply.unused(weights, layers):
            said.append(f"{counted(len(left), 'tensor')} of {path.name} fit nothing in this model, first {left[0]}. Was it "
                        f"trained on another?")  # fmt: skip
            logging.warning("PairLoRA: %s", said[-1])
        say(said, cls.hidden.unique_id)
        return io.NodeOutput(loaded)
