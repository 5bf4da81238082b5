"""Lists of images with their captions, as other trainers keep them beside the images: DiffSynth-Studio's `metadata.csv`
(image, edit_image, prompt), musubi-tuner's JSONL (image_path, control_path, caption), and the like."""
import csv
import io
import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = {".csv", ".json", ".jsonl"}
LONGEST = 64 << 20  # bytes
# What the columns are called, the first that is there counts; those of inputs may be numbered.
TARGET = ("image", "image_path", "target", "target_image", "edited_image", "output_image", "file_name")
INPUT = ("edit_image", "control_path", "control_image", "control", "input_image", "source_image", "original_image",
         "reference_image", "conditioning_image", "kontext_images", "input", "source")  # fmt: skip
CAPTION = ("prompt", "caption", "text", "instruction", "edit_prompt")


@dataclass(frozen=True)
class Entry:
    """One sample: the files of its inputs and its target, as they are written in the list."""

    inputs: tuple[str, ...]
    target: str
    caption: str | None


def names(path: Path) -> list[str]:
    """The names in a text file, one a line, as they compare (NFC); raises OSError or UnicodeDecodeError."""
    return [found for line in path.read_text("utf-8-sig").splitlines() if (found := name(line))]


def name(line: str) -> str:
    return unicodedata.normalize("NFC", line.strip())


def read(path: Path) -> list[Entry]:
    """The entries of a list; none where the file is something else."""
    try:
        with open(path, "rb") as file:
            data = file.read(LONGEST + 1)
        rows = _rows(data.decode("utf-8-sig"), path.suffix.lower()) if len(data) <= LONGEST else []
    except (OSError, ValueError, csv.Error, RecursionError):
        return []
    entries = [_entry(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return [entry for entry in entries if entry]


def _rows(text: str, suffix: str) -> list:
    if suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text)))
    return json.loads(text) if suffix == ".json" else [json.loads(line) for line in text.splitlines() if line.strip()]


def _entry(row: dict) -> Entry | None:
    row = {key.strip().lower(): value for key, value in row.items() if isinstance(key, str) and value}
    numbered = {key: re.fullmatch(r"(.*?)_?(\d*)", key) for key in row}
    word = next((word for word in INPUT if any(key[1] == word for key in numbered.values())), None)
    columns = sorted((int(match[2] or 0), key) for key, match in numbered.items() if match[1] == word)
    inputs = [file for _, key in columns for file in (row[key] if isinstance(row[key], list) else [row[key]])]
    target, caption = (next((row[key] for key in keys if key in row), None) for keys in (TARGET, CAPTION))
    if not isinstance(target, str) or not all(isinstance(file, str) for file in inputs):
        return None
    return Entry(tuple(inputs), target, caption if isinstance(caption, str) else None)
