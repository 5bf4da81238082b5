"""Choosing a folder of pairs, and taking samples out of it."""
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

from ..trainer.data import archive, images, strips
from ..trainer.data.cache import Cache
from ..trainer.data.dataset import PairedDataset, Reading, open_dataset, state, survey
from ..trainer.data.pairs import DatasetError, natural_key
from ..trainer.data.report import Report

Dataset = io.Custom("PAIRLORA_DATASET")
PACK = Path(__file__).parents[1]
SHOWN = 60  # samples on the contact sheet
LINES = 200  # of each section of the report


def sample_folders() -> list[str]:
    """The datasets that ship with the pack, as `samples/NAME`."""
    return sorted(f"samples/{p.name}" for p in (PACK / "samples").iterdir() if p.is_dir() and any(p.glob("*_start.*")))


def input_folders() -> list[str]:
    """The folders and zips in ComfyUI's input folder."""
    inputs = Path(folder_paths.get_input_directory())
    entries = os.scandir(inputs) if inputs.is_dir() else []
    names = [e.name for e in entries if e.is_dir() or e.name.lower().endswith(".zip")]
    return sorted((name for name in names if not name.startswith(".")), key=natural_key)


def resolve(folder: str, path: str = "") -> Path:
    """The folder or zip meant by an entry of the dropdown or, if not empty, by a typed path; raises DatasetError when
    there is none. A relative path lies in ComfyUI's input folder."""
    chosen = (path or "").strip().strip('"') or folder or ""  # Windows copies paths with quotation marks
    if chosen in sample_folders():
        return PACK / chosen
    found = Path(folder_paths.get_input_directory(), chosen).expanduser()  # an absolute path stays what it is
    if not chosen or not (found.is_dir() or (found.suffix.lower() == ".zip" and found.is_file())):
        raise DatasetError(f"There is no folder {found}. Put your pairs into a folder of ComfyUI's input and choose it.")
    return found


def unpacked(chosen: Path) -> tuple[Path, list[tuple[str, str]]]:
    """The folder itself; of a zip, the folder in ComfyUI's temp that it is unpacked to, and the entries left out."""
    if chosen.is_dir():
        return chosen, []
    stat = chosen.stat()
    key = hashlib.sha256(f"{chosen.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode(errors="surrogateescape"))
    place = Path(folder_paths.get_temp_directory(), "pairlora", f"zip-{key.hexdigest()[:16]}")
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=place.parent, prefix="unpacking-"))
        try:
            (staging / chosen.stem).mkdir()
            skipped = archive.unpack(chosen, staging / chosen.stem)
            (staging / "skipped.json").write_text(json.dumps(skipped), encoding="utf-8")
            staging.rename(place)
        except OSError:
            if not place.exists():  # else the page's preview has unpacked it at the same time
                raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return place / chosen.stem, [tuple(entry) for entry in json.loads((place / "skipped.json").read_text("utf-8"))]


def cache() -> Cache:
    return Cache(Path(folder_paths.get_user_directory(), "__pairlora", "datasets.sqlite"))


def shown(report: Report, background: str) -> dict:
    """What the node shows: counts, a contact sheet and the report."""
    colour = images.colour(background)
    findings = defaultdict(list)
    for finding in report.findings:
        findings[finding.sample].append({"level": finding.level, "message": finding.message})
    samples = [
        {
            "name": sample.name,
            "caption": report.captions.get(sample.name, ""),
            "image": _strip(sample, colour),
            "findings": findings[sample.name],
        }
        for sample in report.found.samples[:SHOWN]
    ]
    return {
        "folder": report.name,
        "layout": report.found.layout,
        "counts": report.counts(),
        "samples": samples,
        "more": len(report.found.samples) - len(samples),
        "findings": [vars(finding) for finding in report.grouped()[:LINES]],
        "unused": [{"file": file, "reason": reason} for file, reason in report.found.unused[:LINES]],
        "text": report.text(LINES),
        "checked": report.checked,
    }


def _strip(sample, colour) -> dict:
    """The sample's strip as ComfyUI's /view shows it, made once for the files as they are."""
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sample.images]
    key = hashlib.sha256(repr((stats, colour)).encode(errors="surrogateescape")).hexdigest()[:24]
    folder = Path(folder_paths.get_temp_directory(), "pairlora", "strips")
    file = folder / f"{key}.png"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}-{time.monotonic_ns()}")
        strips.strip(sample, colour).save(unfinished, "PNG")
        unfinished.replace(file)
    return {"filename": file.name, "subfolder": "pairlora/strips", "type": "temp"}


def preview(
    folder="", default_caption="", trigger_word="", resolution=1024, background="white", strict=False, path=""
) -> dict:  # fmt: skip
    """What the node shows before it has run: names and captions, no pixels looked at. Raises DatasetError."""
    place, skipped = unpacked(resolve(folder, path))
    report = survey(place, Reading(default_caption, trigger_word, int(resolution), background))
    report.found.unused += skipped
    return shown(report, background)


class PairLoRADataset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="PairLoRADataset",
            display_name="Load Paired Dataset",
            category="PairLoRA",
            description="Reads before/after pairs from a folder: NAME_start (input), NAME_start1, NAME_start2 (further "
            "inputs), NAME_end (target), NAME.txt (caption, optional). Shows what it found and what is wrong with it.",
            is_output_node=True,  # so that a dataset can be checked without training
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=[*sample_folders(), *input_folders()],
                    tooltip="A folder or zip inside ComfyUI's input folder. 20 pairs are enough for a simple edit. "
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
                io.String.Input(
                    "background",
                    default="white",
                    optional=True,
                    tooltip="The colour that transparent images are put over: a name like white or black, or #rrggbb. "
                    "Start with white.",
                ),
                io.Boolean.Input(
                    "strict",
                    default=False,
                    optional=True,
                    tooltip="On: any error in the report stops the queue. Off: samples with an error are left out and "
                    "named. Start with off.",
                ),
                io.String.Input(
                    "path",
                    default="",
                    optional=True,
                    tooltip="A folder or zip anywhere on the machine that runs ComfyUI, in place of the folder chosen "
                    "above, for example /data/pairs. May stay empty.",
                ),
            ],
            outputs=[Dataset.Output(display_name="dataset"), io.String.Output(display_name="report")],
        )

    @classmethod
    def validate_inputs(cls, folder, background="white", path=""):
        try:
            if background is not None:  # None: linked, known only when it runs
                images.colour(background)
            if folder is not None and path is not None:
                resolve(folder, path)
        except DatasetError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(
        cls, folder, default_caption, trigger_word, resolution, background="white", strict=False, path=""
    ):
        reading = Reading(default_caption, trigger_word, resolution, background)
        if None in (folder, path, *vars(reading).values()):  # linked: the files cannot be looked at yet, so it runs again
            return time.time()
        try:  # raising here would run the node at every queue
            with cache() as remembered:
                return state(unpacked(resolve(folder, path))[0], reading, remembered)
        except (DatasetError, OSError) as error:
            return str(error)

    @classmethod
    def execute(cls, folder, default_caption, trigger_word, resolution, background="white", strict=False, path=""):
        place, skipped = unpacked(resolve(folder, path))
        bar = None

        def on_progress(done: int, total: int) -> None:
            nonlocal bar
            bar = bar or comfy.utils.ProgressBar(total)
            bar.update_absolute(done, total)
            comfy.model_management.throw_exception_if_processing_interrupted()

        reading = Reading(default_caption, trigger_word, resolution, background)
        with cache() as remembered:
            dataset, report = open_dataset(place, reading, remembered, on_progress, strict)
        report.found.unused += skipped
        return io.NodeOutput(dataset, report.text(LINES), ui={"pairlora_dataset": [shown(report, background)]})


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
        if not isinstance(dataset, PairedDataset):
            raise DatasetError("A collected dataset has no pictures to give out. Connect Load Paired Dataset.")
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
