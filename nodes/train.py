"""Training an edit LoRA on the model that the graph holds."""
import os
from collections import Counter

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import io

import nodes as comfy_nodes

from ..trainer import run
from ..trainer.data.dataset import PairedDataset
from ..trainer.host import apply
from ..trainer.loop import Settings
from ..trainer.lora import files
from . import limits, upstream
from .dataset import Dataset
from .telling import Telling

TrainSettings = io.Custom("PAIRLORA_SETTINGS")

STEPS = (
    "How often the LoRA is updated, one batch each time. Think of blowing up a balloon: steps are how many times you "
    "blow. Start with 1000 for 20 pairs, about 50 a pair; too few and the edit is faint, too many and it copies your "
    "pairs."
)
LEARNING_RATE = (
    "How far each step goes: how hard you blow into the balloon. Too soft never fills it, too hard pops it. Start with "
    "0.0001; 0.0001 to 0.0005 is typical. The tiny demo model wants 0.002."
)


class PairLoRASettings(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PairLoRASettings",
            display_name="Training Settings",
            category="PairLoRA",
            description="Everything beyond steps and learning rate. Without this node the defaults apply.",
            inputs=[
                io.Int.Input(
                    "rank",
                    default=16,
                    min=1,
                    max=256,
                    tooltip="How much the LoRA can hold, and how large its file is. Start with 16; 32 to 64 for "
                    "edits with many details.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="How many pairs each step looks at. Start with 1; 4 learns more evenly and takes about four "
                    "times as long and more memory.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Another number gives another LoRA of the same kind. Start with 0.",
                ),
                io.Combo.Input(
                    "timesteps",
                    options=["family default", "uniform", "logit-normal", "resolution-shifted"],
                    default="family default",
                    optional=True,
                    tooltip="Which amounts of noise are trained on. Start with family default: what the base model was "
                    "made with. uniform takes all alike, logit-normal favours the middle, resolution-shifted also moves "
                    "it towards more noise for larger images.",
                ),
                io.Combo.Input(
                    "save_as",
                    options=list(files.DTYPES),
                    default="float32",
                    optional=True,
                    tooltip="How the numbers of the LoRA's file are stored. Start with float32; bf16 and fp16 make it half "
                    "as large, for a change that is smaller than what ComfyUI rounds away itself.",
                ),
                io.Int.Input(
                    "accumulation",
                    default=1,
                    min=1,
                    max=64,
                    optional=True,
                    tooltip="How many batches each step looks at, one after the other, before the LoRA is updated. Start "
                    "with 1; 4 learns as evenly as a batch four times as large, in the memory of one and four times the "
                    "time.",
                ),
            ],
            outputs=[TrainSettings.Output(display_name="settings")],
        )

    @classmethod
    def execute(cls, rank, batch_size, seed, timesteps="family default", save_as="float32", accumulation=1):
        return io.NodeOutput(Settings(rank, batch_size, seed, timesteps, save_as, accumulation))


def output_type(class_type: str, slot: int) -> str | None:
    """The type of what a node of ComfyUI or of any pack gives."""
    types = getattr(comfy_nodes.NODE_CLASS_MAPPINGS.get(class_type), "RETURN_TYPES", None) or ()
    return types[slot] if slot < len(types) else None


class PairLoRATrain(io.ComfyNode):
    made: dict[str, str] = {}  # the LoRA files of this process that are in the loras folder, with the names asked for
    lost: Counter[str] = Counter()  # how many of a name the user has deleted since

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PairLoRATrain",
            display_name="Train Edit LoRA",
            category="PairLoRA",
            description="Learns the edit that turns the inputs of a dataset into its targets, and saves it as a LoRA in "
            "ComfyUI's loras folder.",
            is_output_node=True,  # it saves a file
            inputs=[
                io.Model.Input("model", tooltip="An editing model: FLUX.1 Kontext, FLUX.2, Qwen-Image-Edit, ..."),
                io.Clip.Input("clip", tooltip="The text encoder of the model. A collected dataset makes no use of it."),
                io.Vae.Input("vae", tooltip="The VAE of the model. A collected dataset makes no use of it."),
                Dataset.Input("dataset"),
                io.Int.Input("steps", default=1000, min=1, max=1_000_000, tooltip=STEPS),
                io.Float.Input(
                    "learning_rate", default=1e-4, min=1e-7, max=0.1, step=1e-5, round=1e-7, tooltip=LEARNING_RATE
                ),
                io.String.Input(
                    "name",
                    default="my_edit",
                    tooltip="The LoRA's file name. An existing file is never overwritten: a number is added.",
                ),
                TrainSettings.Input("settings", optional=True),
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                io.LoraModel.Output(display_name="lora"),
                io.String.Output(display_name="lora_name"),
                io.String.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(cls, name):
        try:
            if name is not None:  # None: linked, known only when it runs
                run.lora_path(name)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, name=None, **_):
        """Another value once a LoRA made under this name, or any where the name is linked, is no longer in its place, so
        that the node runs again and puts it back."""
        gone = [file for file, its_name in cls.made.items() if name in (None, its_name) and not os.path.exists(file)]
        cls.lost.update(cls.made.pop(file) for file in gone)
        return cls.lost[name] if name is not None else cls.lost.total()

    @classmethod
    def execute(cls, model, clip, vae, dataset, steps, learning_rate, name, settings=None):
        if isinstance(dataset, PairedDataset):
            limits.require("clip", io.Clip, clip)
            limits.require("vae", io.Vae, vae)
        base_file, lora_files = upstream.files(cls.hidden.prompt, cls.hidden.unique_id, "model", model, output_type)
        own = os.path.join(folder_paths.get_user_directory(), "__pairlora")
        places = run.Places(
            folder_paths.get_output_directory(), folder_paths.get_folder_paths("loras")[0], os.path.join(own, "encodings"),
            (os.path.join(own, "runs"), os.path.join(folder_paths.get_temp_directory(), "pairlora", "runs")),
        )  # fmt: skip
        with Telling(cls.hidden, steps) as telling:
            result = run.train_once(
                model, clip, vae, dataset, settings or Settings(), steps, learning_rate, name,
                places=places, base_file=base_file, lora_files=lora_files,
                graph=None if args.disable_metadata else {"prompt": cls.hidden.prompt, **(cls.hidden.extra_pnginfo or {})},
                on_step=telling.step, on_phase=telling.phase, on_warning=telling.warning,
            )  # fmt: skip
            trained = apply.with_lora(model, result.lora, 1.0)
            telling.report(result.report)
        cls.made[os.path.join(places.loras, result.lora_name)] = name
        return io.NodeOutput(trained, result.lora, result.lora_name, result.report, ui={"text": [result.report]})
