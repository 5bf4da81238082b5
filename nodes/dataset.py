"""Choosing a folder of pairs, and taking samples out of it."""
import time
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from ..trainer.data.dataset import PairedDataset, match_dataset, open_dataset
from ..trainer.data.pairs import DatasetError, natural_key

Dataset = io.Custom("PAIRLORA_DATASET")
PACK = Path(__file__).parents[1]


def sample_folders() -> list[str]:
    """The datasets that ship with the pack, as `samples/NAME`."""
    return sorted(f"samples/{p.name}" for p in (PACK / "samples").iterdir() if p.is_dir() and any(p.glob("*_start.*")))


def resolve(folder: str) -> Path:
    """The folder meant by an entry of the dropdown or an absolute path; raises DatasetError when there is none."""
    if folder in sample_folders():
        return PACK / folder
    path = Path(folder_paths.get_input_directory(), folder)  # an absolute folder stays what it is
    if not folder or not path.is_dir():
        raise DatasetError(f"There is no folder {path}. Put your pairs into a folder of ComfyUI's input and choose it.")
    return path


class PairLoRADataset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        inputs = Path(folder_paths.get_input_directory())
        found = sorted((p.name for p in inputs.iterdir() if p.is_dir()), key=natural_key) if inputs.is_dir() else []
        return io.Schema(
            node_id="PairLoRADataset",
            display_name="Load Paired Dataset",
            category="PairLoRA",
            description="Reads before/after pairs from a folder: NAME_start (input), NAME_start1, NAME_start2 (further "
            "inputs), NAME_end (target), NAME.txt (caption, optional).",
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=[*sample_folders(), *found],
                    tooltip="A folder inside ComfyUI's input folder. 20 pairs are enough for a simple edit. "
                    "samples/... ships with the pack.",
                ),
                io.String.Input(
                    "default_caption",
                    default="",
                    tooltip="The edit instruction for pairs without a NAME.txt, for example: remove the background",
                ),
                io.String.Input(
                    "trigger_word", default="", tooltip="A word put in front of every caption. May stay empty."
                ),
                io.Int.Input(
                    "resolution",
                    default=1024,
                    min=64,
                    max=4096,
                    step=16,
                    tooltip="Images are scaled to about this many pixels squared, keeping their ratio. Start with the "
                    "resolution you will generate at, 1024 for most models; 512 trains four times faster.",
                ),
            ],
            outputs=[Dataset.Output(display_name="dataset"), io.String.Output(display_name="report")],
        )

    @classmethod
    def validate_inputs(cls, folder):
        if folder is None:  # linked, known only when it runs
            return True
        try:
            resolve(folder)
        except DatasetError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder, default_caption, trigger_word, resolution):
        if folder is None:  # linked: the files cannot be looked at yet, so the node runs again
            return time.time()
        try:  # raising here would run the node at every queue
            return match_dataset(resolve(folder), default_caption or "", trigger_word or "", resolution or 0)[0].fingerprint()
        except Exception as error:
            return str(error)

    @classmethod
    def execute(cls, folder, default_caption, trigger_word, resolution):
        return io.NodeOutput(*open_dataset(resolve(folder), default_caption, trigger_word, resolution))


class PairLoRASample(io.ComfyNode):
    IMAGES = ("start", "start1", "start2")

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PairLoRASample",
            display_name="Samples of a Dataset",
            category="PairLoRA",
            description="Gives out the samples of a dataset as lists, so that the nodes after it run once a sample.",
            inputs=[
                Dataset.Input("dataset"),
                io.String.Input(
                    "which", default="all", tooltip="all, or the name of one sample, for example photo001."
                ),
            ],
            outputs=[
                *(io.Image.Output(display_name=name, is_output_list=True) for name in cls.IMAGES),
                io.Image.Output(display_name="target", is_output_list=True),
                io.String.Output(display_name="caption", is_output_list=True),
                io.String.Output(display_name="name", is_output_list=True),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, dataset: PairedDataset, which: str):
        samples = [s for s in dataset.samples if which in ("all", s.name)]
        if not samples:
            raise DatasetError(f"{dataset.folder.name} has no sample {which!r}. It has {dataset.samples[0].name}, ...")
        images = [[torch.from_numpy(image)[None] for image in dataset.images(sample)] for sample in samples]
        starts = []
        for i, output in enumerate(cls.IMAGES):
            missing = [sample.name for sample in samples if len(sample.starts) <= i]
            if missing and cls._is_connected(i):
                raise DatasetError(f"{missing[0]} has no {missing[0]}_{output} image, but the graph uses that output.")
            starts.append([] if missing else [of_sample[i] for of_sample in images])
        return io.NodeOutput(
            *starts,
            [of_sample[-1] for of_sample in images],
            [dataset.caption(sample) for sample in samples],
            [sample.name for sample in samples],
        )

    @classmethod
    def _is_connected(cls, output: int) -> bool:
        link = [cls.hidden.unique_id, output]
        return any(link in node["inputs"].values() for node in (cls.hidden.prompt or {}).values())
