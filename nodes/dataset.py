"""Choosing a folder of pairs, and taking samples out of it."""
import contextlib
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
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..trainer.data import archive, images, strips, typed
from ..trainer.data.cache import Cache
from ..trainer.data.dataset import PairedDataset, Reading, open_dataset, state, survey
from ..trainer.data.held_out import FROM, held_out
from ..trainer.data.pairs import IMAGE_SUFFIXES, DatasetError, Sample, natural_key
from ..trainer.data.report import Report
from ..trainer.data.text import printable
from . import access, in_use
from .access import PACK

Dataset = io.Custom("PAIRLORA_DATASET")
SHOWN = 60  # samples on the contact sheet
LINES = 200  # of each section of the report
OFFERED = IMAGE_SUFFIXES | {".heic", ".heif"}  # images, also those that the report says to convert
KEPT = 20  # results of runs
LOOKED_AT = 1000  # entries of a folder, to see whether it is one of images

checked: dict[str, dict] = {}  # what runs have found, by what the survey of the same files says as JSON


def sample_folders() -> list[str]:
    """The datasets that ship with the pack, as `samples/NAME`."""
    return sorted(f"samples/{p.name}" for p in (PACK / "samples").iterdir() if p.is_dir() and any(p.glob("*_start.*")))


def input_folders() -> list[str]:
    """The zips in ComfyUI's input folder, and its folders with images; not those that ComfyUI makes for other things."""
    inputs = Path(folder_paths.get_input_directory())
    names = [name for name in os.listdir(inputs) if not name.startswith(".")] if inputs.is_dir() else []
    offered = [name for name in names if name.lower().endswith(".zip") or may_hold_images(inputs / name)]
    return sorted(offered, key=natural_key)


def may_hold_images(folder: Path) -> bool:
    """Whether an image lies in a folder or below it, or could: only so many of its entries are looked at."""
    folders, left = [folder], LOOKED_AT
    for path in folders:  # it grows
        with contextlib.suppress(OSError), os.scandir(path) as entries:  # one that cannot be read holds nothing to train on
            for entry in entries:
                left -= 1
                if left < 0 or Path(entry.name).suffix.lower() in OFFERED:
                    return True
                if os.path.isdir(entry.path):  # False for a link that leads nowhere
                    folders.append(entry.path)
    return False


def resolve(folder: str, path: str = "") -> Path:
    """The folder or zip meant by an entry of the dropdown or, if not empty, by a typed path; raises DatasetError when
    there is none. A relative path lies in ComfyUI's input folder."""
    given = path if typed.path(path or "") else folder or ""
    for chosen in (given, typed.path(given)):  # a name may well begin with a quotation mark
        if (sample := chosen.replace("\\", "/")) in sample_folders():
            return PACK / sample
        found = Path(folder_paths.get_input_directory(), chosen)  # an absolute path stays what it is
        if why := access.refusal(found):
            raise DatasetError(why)
        if chosen and (os.path.isdir(found) or (found.suffix.lower() == ".zip" and os.path.isfile(found))):
            return found
    if os.path.isfile(found):
        raise DatasetError(f"{printable(str(found))} is a file. Choose the folder that it lies in, or a zip.")
    what = f"folder {printable(str(found))}" if chosen else "folder chosen"
    raise DatasetError(f"There is no {what}. Put your pairs into a folder of ComfyUI's input and choose it.")


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


def read_only(chosen: Path) -> str | None:
    """Why the page changes nothing in a folder or zip; None where it may."""
    if not chosen.is_dir():
        return f"{called(chosen)} is a zip, which is not changed. Upload it, or unpack it into a folder, to edit its pairs."
    if chosen.resolve().is_relative_to(PACK.resolve()):
        return "The sample datasets of the pack are read-only. Copy the folder into ComfyUI's input to edit it."
    return None


def shown(report: Report, background: str, chosen: Path) -> dict:
    """What the node shows: counts, a contact sheet and the report."""
    colour = images.colour(background)
    findings = defaultdict(list)
    for finding in report.findings:
        findings[finding.sample].append({"level": finding.level, "message": finding.message})

    def sheet(chosen: list[Sample]) -> list[dict]:
        return [
            {
                "name": sample.name,
                "caption": report.captions.get(sample.name, ""),
                "image": _strip(sample, colour),
                "findings": findings[sample.name],
            }
            for sample in chosen
        ]

    samples, others = report.found.samples[:SHOWN], report.found.samples[SHOWN:]
    samples += [sample for sample in others if findings[sample.name]][:SHOWN]  # the page can show these alone
    return {
        "folder": report.name,
        "read_only": read_only(chosen),
        "layout": report.found.layout,
        "counts": report.counts(),
        "steps": report.steps,
        "samples": sheet(samples),
        "left_out": sheet(list(report.found.left_out)[:LINES]),
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
    folder="", default_caption="", trigger_word="", resolution=1024, background=images.AS_LOADED, strict=False, path=""
) -> dict:  # fmt: skip
    """What the node shows: what a run has found in the files as they are or, before one, names and captions, no pixels
    looked at. Raises DatasetError."""
    chosen, reading = resolve(folder, path), Reading(default_caption, trigger_word, int(resolution), background)
    result = shown(surveyed(chosen, reading), background, chosen)
    return checked.get(json.dumps(result), result)


def surveyed(chosen: Path, reading: Reading) -> Report:
    """What names and captions of a folder or zip tell."""
    place, skipped = unpacked(chosen)
    report = survey(place, reading, called(chosen))
    report.found.skip(skipped)
    return report


def tell(before: str, result: dict) -> None:
    """Show a run's result on the page that queued it, and keep it for as long as ``before``, the survey as JSON, stays the
    same. As an output of the node it would be an empty tile in the queue's gallery."""
    checked[before] = result
    if len(checked) > KEPT:
        del checked[next(iter(checked))]
    context, server = get_executing_context(), PromptServer.instance
    about = {"prompt_id": context.prompt_id, "node": context.node_id, "result": result}
    if server.client_id is not None:
        server.send_sync("pairlora_dataset", about, server.client_id)


def linked(prompt: dict, node: str, output: int) -> bool:
    """Whether a node of the prompt takes that output of ``node``."""
    return any([node, output] in other["inputs"].values() for other in prompt.values())


def called(chosen: Path) -> str:
    return printable(str(chosen))


class Choices(list):
    """Entries of a dropdown that ComfyUI does not check: a typed path may stand in for a folder that is gone."""

    def __contains__(self, value) -> bool:
        return True


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
                    options=Choices([*sample_folders(), *input_folders()]),
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
                    default=images.AS_LOADED,
                    optional=True,
                    tooltip="What transparent images are put over: a colour like white or black, or #rrggbb. Start with "
                    "as LoadImage: alpha is left out, and what lies under it is trained on, since that is what ComfyUI's "
                    "LoadImage will give the graph.",
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
    def validate_inputs(cls, path=""):
        """Only the path is looked at, for ComfyUI puts what is wrong beside every input that is asked for here. The rest
        is looked at when the node runs, which it does before others: it is an output node that waits for nothing."""
        try:
            if typed.path(path or ""):  # None: linked, known only when it runs
                resolve("", path)
        except DatasetError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(
        cls, folder, default_caption, trigger_word, resolution, background=images.AS_LOADED, strict=False, path=""
    ):
        reading = Reading(default_caption, trigger_word, resolution, background)
        if None in (folder, path, *vars(reading).values()):  # linked: the files cannot be looked at yet, so it runs again
            return time.time()
        try:  # raising here would run the node at every queue
            with cache() as remembered:
                return state(unpacked(resolve(folder, path))[0], reading, remembered)
        except (ValueError, OSError) as error:
            return str(error)

    @classmethod
    def execute(
        cls, folder, default_caption, trigger_word, resolution, background=images.AS_LOADED, strict=False, path=""
    ):
        images.colour(background)
        chosen, bar = resolve(folder, path), None

        def on_progress(done: int, total: int) -> None:
            nonlocal bar
            bar = bar or comfy.utils.ProgressBar(total)
            bar.update_absolute(done, total)
            comfy.model_management.throw_exception_if_processing_interrupted()

        reading = Reading(default_caption, trigger_word, resolution, background)
        with in_use.reading(chosen), cache() as remembered:
            report = surveyed(chosen, reading)
            before = json.dumps(shown(report, background, chosen))
            dataset = open_dataset(report, reading, remembered, on_progress, strict, called(chosen))
        tell(before, shown(report, background, chosen))
        return io.NodeOutput(dataset, report.text(LINES))


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
                    "which",
                    default="all",
                    tooltip="all, held-out (those that training keeps to itself for its score), trained (the others), or "
                    "the name of one sample, for example photo001.",
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
        kept = held_out(dataset.content) if which in ("held-out", "trained") else set()
        parts = {"all": lambda name: True, "held-out": lambda name: name in kept, "trained": lambda name: name not in kept}
        samples = [s for s in dataset.samples if parts.get(which, which.__eq__)(s.name)]
        if which == "held-out" and not samples:
            raise DatasetError(
                f"{dataset.folder.name} has {len(dataset.samples)} samples, of which none is held out; from {FROM} on a tenth is. "
                "Choose all, or connect pairs of another folder."
            )
        if not samples:
            raise DatasetError(f"{dataset.folder.name} has no sample {which!r}. It has {dataset.samples[0].name}, ...")
        images = [[torch.from_numpy(image)[None] for image in dataset.images(sample)] for sample in samples]
        starts = []
        for i, output in enumerate(cls.IMAGES):
            missing = [sample.name for sample in samples if len(sample.starts) <= i]
            if missing and linked(cls.hidden.prompt or {}, cls.hidden.unique_id, i):
                raise DatasetError(f"{missing[0]} has no {missing[0]}_{output} image, but the graph uses that output.")
            starts.append([] if missing else [of_sample[i] for of_sample in images])
        return io.NodeOutput(
            *starts,
            [of_sample[-1] for of_sample in images],
            [dataset.caption(sample) for sample in samples],
            [sample.name for sample in samples],
        )
