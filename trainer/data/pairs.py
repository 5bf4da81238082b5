"""Which files of a folder make which sample: `NAME_start`, `NAME_start1`, ..., `NAME_end` and `NAME.txt`."""
import re
from dataclasses import dataclass, field
from pathlib import Path

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
ROLE = re.compile(r"(?P<name>.+)_(?P<role>start(?P<number>\d*)|end)", re.IGNORECASE)


class DatasetError(ValueError):
    """A folder or a file of it cannot be used; the message names it and says what to do."""


@dataclass(frozen=True)
class Sample:
    """What shares a base name: input images in order, the target, and perhaps a file with the caption."""

    name: str
    starts: tuple[Path, ...]
    end: Path
    caption_file: Path | None = None

    @property
    def images(self) -> tuple[Path, ...]:
        return (*self.starts, self.end)


@dataclass
class Match:
    """The samples of a folder in natural order, and every other file of it with the reason it is not used."""

    folder: Path
    samples: list[Sample] = field(default_factory=list)
    unused: list[tuple[str, str]] = field(default_factory=list)

    def report(self) -> str:
        """What was found, a line each; the files that are not used come last, with the reason."""
        references = sorted({len(s.starts) for s in self.samples})
        captions = sum(s.caption_file is not None for s in self.samples)
        lines = [
            f"{self.folder.name}: {len(self.samples)} pairs, "
            f"{' or '.join(map(str, references)) or 0} input image(s) each, {captions} with a caption file"
        ]
        lines += [f"not used: {file} ({reason})" for file, reason in self.unused]
        return "\n".join(lines)


def natural_key(text: str) -> list:
    """A sort key that puts `photo2` before `photo10`, the same on every system."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", text.casefold())] + [
        (0, 0, text)
    ]


def match(folder: Path) -> Match:
    """Match the files of ``folder`` (not of its subfolders) to samples.

    Raises:
        DatasetError: the folder does not exist, is empty, or holds no complete pair.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder}. Put your pairs into one and choose it here.")
    entries = sorted(folder.iterdir(), key=lambda p: natural_key(p.name))
    if not entries:
        raise DatasetError(f"The folder {folder} is empty. Put NAME_start.jpg and NAME_end.jpg files into it.")

    result = Match(folder)
    starts: dict[str, dict[int, Path]] = {}
    ends: dict[str, Path] = {}
    captions: dict[str, Path] = {}
    for path in entries:
        role = ROLE.fullmatch(path.stem)
        if not path.is_file():
            result.unused.append((path.name, "a folder; only the files of one folder make a dataset"))
        elif path.suffix.lower() == ".txt":
            captions[path.stem] = path
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            result.unused.append((path.name, "neither an image nor a .txt caption"))
        elif role is None:
            result.unused.append((path.name, "the name ends neither in _start nor in _end"))
        else:
            name, end = role["name"], role["role"].lower() == "end"
            slot, key = (ends, name) if end else (starts.setdefault(name, {}), int(role["number"] or 0))
            if key in slot:
                result.unused.append((path.name, f"{slot[key].name} already takes this place"))
            else:
                slot[key] = path

    for name in sorted(starts.keys() | ends.keys(), key=natural_key):
        inputs = starts.get(name, {})
        if 0 in inputs and name in ends:
            ordered = tuple(inputs[number] for number in sorted(inputs))
            result.samples.append(Sample(name, ordered, ends[name], captions.pop(name, None)))
        else:
            reason = f"no {name}_end image" if name not in ends else f"no {name}_start image"
            files = [*inputs.values(), *([ends[name]] if name in ends else [])]
            result.unused += [(path.name, reason) for path in files]
    result.unused += [(path.name, "a caption without images") for path in captions.values()]
    if not result.samples:
        reasons = "; ".join(f"{file}: {reason}" for file, reason in result.unused[:5])
        raise DatasetError(
            f"The folder {folder} holds no complete pair. A pair is NAME_start.jpg and NAME_end.jpg. Found: {reasons}"
        )
    return result
