"""The checkpoints of a run, to compare them at several strengths and to keep one."""
import logging
from pathlib import Path

import folder_paths
from comfy_api.latest import io
from server import PromptServer

from ..trainer.host import apply
from ..trainer.run.stages import evenly, keep, read, stages
from .answers import answer
from .apply import resolve, say
from .runs import output_folder

MOST = 10.0  # strength, as of Load LoRA

routes = PromptServer.instance.routes


def strengths_of(text: str) -> list[float]:
    """The numbers of "0.6, 0.8 1"; raises ValueError."""
    try:
        found = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        found = []
    if not found or not all(abs(strength) <= MOST for strength in found):
        raise ValueError(f"strengths are {text!r}, but must be numbers from -10 to 10, such as 0.6, 0.8, 1.0.")
    return list(dict.fromkeys(found))


def keep_stage(asked) -> dict:
    """Keep a checkpoint as a LoRA: {"lora": name in the loras folder, "step": number} gives {"file": name there}."""
    match asked:
        case {"lora": str(lora), "step": int(step)}:
            source = folder_paths.get_full_path("loras", f"{lora.removesuffix('.safetensors')}.safetensors")
            if source is None:  # no other folder is read or written
                raise ValueError(f"There is no LoRA {lora!r} in ComfyUI's loras folder.")
            return {"file": keep(output_folder(), Path(source), step).name}
    raise ValueError('What to keep is told as {"lora": NAME, "step": NUMBER}.')


answer("/pairlora/keep", routes.post, keep_stage)


class PairLoRACheckpoints(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PairLoRACheckpoints",
            display_name="Checkpoints of a Run",
            category="PairLoRA",
            description="Gives out the model with checkpoints of a run, each at each strength, so that the nodes after it run "
            "once for each; Before / After shows them as a grid.",
            inputs=[
                io.Model.Input("model"),
                io.String.Input(
                    "lora", default="", tooltip="A LoRA of the loras folder that Train Edit LoRA made; link its lora_name."
                ),
                io.String.Input("strengths", default="0.6, 0.8, 1.0", tooltip="Numbers with commas between them."),
                io.Int.Input(
                    "most", default=6, min=1, max=100, optional=True,
                    tooltip="At most so many checkpoints, spread evenly over the run; the last is always among them. Start with 6.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", is_output_list=True),
                io.String.Output(display_name="label", is_output_list=True),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, model=None, lora=None, strengths=None, most=None):
        try:
            return str([(str(file), file.stat().st_mtime_ns) for file in stages(output_folder(), resolve(lora)).values()])
        except Exception:
            return ""

    @classmethod
    def execute(cls, model, lora, strengths, most=6):
        path, numbers = resolve(lora), strengths_of(strengths)
        models, labels, damaged = [], [], []
        name = lora.replace("\\", "/").removesuffix(".safetensors")
        for step, file in evenly(stages(output_folder(), path), most).items():
            try:
                weights = read(file)
            except ValueError as error:
                damaged.append(str(error))
                logging.warning(f"PairLoRA: {error}")
                continue
            for strength in numbers:
                loaded = apply.with_lora(model, weights, strength)
                if not apply.added(model, loaded):
                    raise ValueError(f"Nothing in {file} fits this model. Connect the base model that it was trained on.")
                models.append(loaded)
                labels.append(f"{name} step {step} at {strength:g}")
        if not models:
            raise ValueError("\n".join(damaged))
        say(damaged, cls.hidden.unique_id)
        return io.NodeOutput(models, labels)
