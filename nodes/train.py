"""Training an edit LoRA on the model that the graph holds."""
import contextlib
import os
from collections import Counter
from pathlib import Path

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import io, ui

import nodes as comfy_nodes

from ..trainer.data.dataset import PairedDataset
from ..trainer.host import apply
from ..trainer.host.sampling import BIASES
from ..trainer.loop import Settings
from ..trainer.lora import files
from ..trainer.lora.inject import CHOICES
from ..trainer.lora.start import read as read_start
from ..trainer.run.job import Job
from ..trainer.run.once import train_once
from ..trainer.run.places import Places, lora_path, whole
from . import in_use, limits, upstream
from .apply import resolve
from .dataset import Dataset
from .telling import Telling

TrainSettings = io.Custom("PAIRLORA_SETTINGS")
NEW = "none"  # in place of a LoRA to continue from

STEPS = (
    "How often the LoRA is updated, one batch each time. Think of blowing up a balloon: steps are how many times you "
    "blow. Start with 1000 for 20 pairs, about 50 a pair; too few and the edit is faint, too many and it copies your "
    "pairs."
)
LEARNING_RATE = (
    "How far each step goes: how hard you blow into the balloon. Too soft never fills it, too hard pops it. Start with "
    "0.0001; 0.0001 to 0.0005 is typical. The tiny demo model wants 0.002."
)


def advanced(widget: io.WidgetInput) -> io.WidgetInput:
    """The input, whose widget the page shows on request. Older hosts take this in no other way."""
    widget.extra_dict = {**(widget.extra_dict or {}), "advanced": True}
    return widget


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
                *map(advanced, [
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
                    io.Int.Input(
                        "warmup",
                        default=20,
                        min=0,
                        max=10_000,
                        optional=True,
                        tooltip="Steps in which the learning rate rises to its height. Start with 20; more if the loss jumps "
                        "at the beginning.",
                    ),
                    io.Int.Input(
                        "cooldown",
                        default=0,
                        min=0,
                        max=100,
                        optional=True,
                        tooltip="Percent of the steps, at the end, in which the learning rate falls to zero. Start with 0; 20 "
                        "gives a smoother LoRA. More steps later go on from where the fall began.",
                    ),
                    io.Combo.Input(
                        "hold_out",
                        options=["a tenth", "none"],
                        default="a tenth",
                        optional=True,
                        tooltip="Of 12 pairs and more, a tenth is not trained on but shows whether the LoRA still learns or "
                        "copies its pairs. Start with a tenth; none trains on all. Pairs connected to held_out come first.",
                    ),
                    io.Combo.Input(
                        "hand_on",
                        options=["best", "last"],
                        default="best",
                        optional=True,
                        tooltip="Which LoRA is given out: the one that does best on held-out pairs, or that of the last step. "
                        "Start with best; without held-out pairs both are the last.",
                    ),
                    io.Int.Input(
                        "previews",
                        default=3,
                        min=0,
                        max=100,
                        optional=True,
                        tooltip="How often pictures of held-out pairs are made while it trains, the first before and the last "
                        "after it. Start with 3; 0 makes none, and more take longer.",
                    ),
                    io.Int.Input(
                        "checkpoint_steps",
                        default=250,
                        min=1,
                        max=1_000_000,
                        optional=True,
                        tooltip="After so many steps the training is saved, so that not even a power cut loses more. Start "
                        "with 250. Cancel saves too.",
                    ),
                    io.Int.Input(
                        "checkpoint_minutes",
                        default=10,
                        min=1,
                        max=1_000,
                        optional=True,
                        tooltip="It is also saved after so many minutes. Start with 10.",
                    ),
                    io.Combo.Input(
                        "bias",
                        options=list(BIASES),
                        default="balanced",
                        optional=True,
                        tooltip="Which part of drawing a picture is trained more. Start with balanced; structure for edits that "
                        "move or replace things, detail for those of texture and sharpness.",
                    ),
                    io.Combo.Input(
                        "loss",
                        options=["squared", "huber", "min-snr"],
                        default="squared",
                        optional=True,
                        tooltip="How errors are counted. Start with squared; huber where some pairs are imperfect, so that large "
                        "errors count less; min-snr for SD1.5 and SDXL, which learns more evenly.",
                    ),
                    io.Combo.Input(
                        "layers",
                        options=list(CHOICES),
                        default="all",
                        optional=True,
                        tooltip="Which layers of the model the LoRA changes. Start with all. attention only makes a smaller file "
                        "and a milder edit; image stream only leaves alone how the model reads the caption.",
                    ),
                    io.String.Input(
                        "layer_pattern",
                        default="",
                        optional=True,
                        tooltip="Of these layers only those whose path has this regular expression, such as single_blocks, or "
                        r"single_blocks\.[0-9]\. for the first ten. Start with nothing: all of them.",
                    ),
                ]),  # fmt: skip
            ],
            outputs=[TrainSettings.Output(display_name="settings")],
        )

    @classmethod
    def execute(cls, **settings):
        return io.NodeOutput(Settings(**settings))


def output_type(class_type: str, slot: int) -> str | None:
    """The type of what a node of ComfyUI or of any pack gives."""
    types = getattr(comfy_nodes.NODE_CLASS_MAPPINGS.get(class_type), "RETURN_TYPES", None) or ()
    return types[slot] if slot < len(types) else None


def in_a_file(report: str, run: Path) -> list[ui.SavedResult]:
    """The report in the run's folder, put out as ComfyUI's Save Text does it: of texts, App mode shows files only."""
    with contextlib.suppress(OSError, ValueError):  # of a run that had to be kept elsewhere it is told all the same
        subfolder = run.relative_to(folder_paths.get_output_directory()).as_posix()
        with whole(run / "report.txt") as unfinished:
            unfinished.write_text(report, encoding="utf-8")
        return [ui.SavedResult("report.txt", subfolder, io.FolderType.output)]
    return []


class PairLoRATrain(io.ComfyNode):
    made: dict[str, str] = {}  # the LoRA files of this process that are in the loras folder, with the names asked for
    lost: Counter[str] = Counter()  # how many of a name the user has deleted since
    stopped: Counter[str] = Counter()  # how often a training of a name was asked to stop

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
                Dataset.Input(
                    "held_out",
                    optional=True,
                    tooltip="Pairs that are not trained on, to see how the LoRA does on them. Without it a tenth of the "
                    "dataset is held out, from 12 pairs on.",
                ),
                io.Combo.Input(
                    "continue_from",
                    options=[NEW, *folder_paths.get_filename_list("loras")],
                    default=NEW,
                    optional=True,
                    tooltip="A LoRA of this base model to train on from, with its own rank, for example with other pairs or "
                    "a lower rate. Start with none: a new LoRA. A cancelled training goes on by itself.",
                ),
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
                lora_path(name)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, name=None, continue_from=NEW, **_):
        """Another value once a LoRA made under this name, or any where the name is linked, is no longer in its place, so
        that the node runs again and puts it back; and once its training was stopped, so that it goes on."""
        gone = [file for file, its_name in cls.made.items() if name in (None, its_name) and not os.path.exists(file)]
        cls.lost.update(cls.made.pop(file) for file in gone)
        changes = sum(count[name] if name is not None else sum(count.values()) for count in (cls.lost, cls.stopped))
        start = folder_paths.get_full_path("loras", continue_from or NEW)
        return changes, os.stat(start).st_mtime_ns if start else 0

    @classmethod
    def execute(cls, model, clip, vae, dataset, steps, learning_rate, name, settings=None, held_out=None, continue_from=NEW):
        if isinstance(dataset, PairedDataset) or isinstance(held_out, PairedDataset):
            limits.require("clip", io.Clip, clip)
            limits.require("vae", io.Vae, vae)
        base_file, lora_files = upstream.files(cls.hidden.prompt, cls.hidden.unique_id, "model", model, output_type)
        graph = None if args.disable_metadata else {"prompt": cls.hidden.prompt, **(cls.hidden.extra_pnginfo or {})}
        start = None if continue_from == NEW else read_start(model, resolve(continue_from))
        job = Job(
            model, clip, vae, dataset, settings or Settings(), steps, learning_rate, name, held_out, start, base_file,
            tuple(lora_files), graph,
        )  # fmt: skip
        own = os.path.join(folder_paths.get_user_directory(), "__pairlora")
        places = Places(
            folder_paths.get_output_directory(), folder_paths.get_folder_paths("loras")[0], os.path.join(own, "encodings"),
            (os.path.join(own, "runs"), os.path.join(folder_paths.get_temp_directory(), "pairlora", "runs")),
        )  # fmt: skip
        folders = [given.folder for given in (dataset, held_out) if isinstance(given, PairedDataset)]
        with in_use.reading(*folders), Telling(cls.hidden, steps) as telling:
            result = train_once(job, places, telling)
            trained = apply.with_lora(model, result.lora, 1.0)
            telling.report(result.report)
        cls.made[os.path.join(places.loras, result.lora_name)] = name
        cls.stopped[name] += result.stopped
        shown = {"text": [result.report], "files": in_a_file(result.report, telling.folder)}
        return io.NodeOutput(trained, result.lora, result.lora_name, result.report, ui=shown)
