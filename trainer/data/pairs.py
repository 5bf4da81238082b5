"""Which files of a folder make which sample: `NAME_start`, `NAME_start1`, ..., `NAME_end` and `NAME.txt`.

Only names are looked at here, so that ten thousand samples are matched in a moment.
"""
import os
import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
ROLE = re.compile(r"(?P<name>.*)_(?P<role>start(?P<number>[0-9]*)|end)", re.IGNORECASE | re.DOTALL)
SIBLINGS = [("before", "after"), ("input", "output"), ("control", "target"), ("source", "target")]
BY_SUFFIX = "NAME_start and NAME_end in one folder"
CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}
HIDDEN = "hidden, or a file of the operating system"
DEEPEST = 4  # folders that hold nothing but one folder, as archives often do

END, PLAIN = "end", "plain"  # roles of an image; the role of an input is its number


class DatasetError(ValueError):
    """A folder or a file of it cannot be used; the message names it and says what to do."""


@dataclass(frozen=True)
class Finding:
    """Something to tell about a dataset. ``level`` is "error" (the sample is left out), "warning" or "note";
    ``code`` is for programs; ``sample`` is None for what concerns the whole folder."""

    level: str
    code: str
    sample: str | None
    message: str


@dataclass(frozen=True)
class Sample:
    """What shares a base name: input images in order, the target, and perhaps a file with the caption.

    Without inputs it is unpaired, an ordinary text-to-image sample.
    """

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
    layout: str = BY_SUFFIX
    samples: list[Sample] = field(default_factory=list)
    unused: list[tuple[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def relative(self, path: Path) -> str:
        """The file's name as it is written in reports: relative to the folder, with forward slashes."""
        return path.relative_to(self.folder).as_posix()

    def leave_out(self, errors: dict[str, Finding]) -> None:
        """Take the samples of these names out; their files are named with the reason."""
        for sample in self.samples:
            if error := errors.get(sample.name):
                files = [*sample.images, *([sample.caption_file] if sample.caption_file else [])]
                self.unused += [(self.relative(path), error.message) for path in files]
        self.samples = [sample for sample in self.samples if sample.name not in errors]
        self.findings += errors.values()


def natural_key(text: str) -> list:
    """A sort key that puts `photo2` before `photo10`, the same on every system."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split("([0-9]+)", folded)] + [
        (0, 0, text)
    ]


def match(folder: Path) -> Match:
    """Match the files of ``folder`` to samples, by the suffixes of their names or as two folders of equal names.

    Raises:
        DatasetError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder}. Put your pairs into one and choose it here.")
    found = _match(folder, folder)
    if not found.samples:
        if found.unused:
            telling = sorted(found.unused, key=lambda entry: entry[1] == HIDDEN)[:5]
            reasons = "; ".join(f"{file}: {reason}" for file, reason in telling)
            message = f"holds no complete pair. A pair is NAME_start.jpg and NAME_end.jpg. Found: {reasons}"
        else:
            message = "is empty. Put NAME_start.jpg and NAME_end.jpg files into it."
        found.findings.append(Finding("error", "no-samples", None, f"The folder {folder} {message}"))
    return found


def _match(root: Path, folder: Path, depth: int = 0) -> Match:
    here = _Listing(folder)
    best, rest = _by_suffix(root, here), here.folders
    for names in SIBLINGS:
        siblings = [next((path for path in here.folders if path.name.casefold() == name), None) for name in names]
        if all(siblings):
            candidate = _by_folders(root, here, *map(_Listing, siblings))
            if len(candidate.samples) > len(best.samples) or not (best.samples or here.images):
                best, rest = candidate, [path for path in here.folders if path not in siblings]
    if not best.samples and not here.images and len(rest) == len(here.folders) == 1 and depth < DEEPEST:
        best, rest = _match(root, rest[0], depth + 1), []
        best.unused += [(best.relative(path), "a caption without images") for path in here.texts]
    best.unused += [(best.relative(path), "a folder; only the files of one folder make a dataset") for path in rest]
    best.unused += [(best.relative(path), reason) for path, reason in here.others]
    best.unused.sort(key=lambda entry: natural_key(entry[0]))
    return best


class _Listing:
    """The entries of one folder in natural order, by kind."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.images, self.texts, self.folders, self.others = [], [], [], []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: natural_key(entry.name)):
                path = folder / entry.name
                suffix = path.suffix.lower()
                if entry.name.startswith(".") or entry.name.lower() in CLUTTER:
                    self.others.append((path, HIDDEN))
                elif entry.is_dir():
                    self.folders.append(path)
                elif not entry.is_file():
                    self.others.append((path, "not an ordinary file"))
                elif suffix == ".txt":
                    self.texts.append(path)
                elif suffix == ".zip":
                    self.others.append((path, "an archive; choose it itself, or unpack it"))
                elif suffix in IMAGE_SUFFIXES:
                    self.images.append(path)
                else:
                    self.others.append((path, "neither an image nor a .txt caption"))


def _stem(path: Path) -> str:
    return unicodedata.normalize("NFC", path.stem)  # macOS writes é as two characters, others as one


class _Group:
    """The files of one base name: images by role, captions in the order in which they count."""

    def __init__(self):
        self.images: dict[int | str, list[Path]] = defaultdict(list)
        self.captions: list[Path] = []


def _by_suffix(root: Path, here: _Listing) -> Match:
    found, groups = Match(root), defaultdict(_Group)
    if here.folder != root:
        found.layout += f" ({found.relative(here.folder)})"
    plain: dict[str, list[Path]] = defaultdict(list)
    for path in here.images:
        role = ROLE.fullmatch(_stem(path))
        if role and not role["name"]:
            message = f"there is no name in front of {path.stem}; call it photo001{path.stem}{path.suffix}"
            found.unused.append((found.relative(path), message))
            found.findings.append(Finding("error", "no-name", None, f"{found.relative(path)}: {message}"))
        elif role:
            key = END if role["role"].lower() == "end" else int(role["number"] or 0)
            groups[role["name"]].images[key].append(path)
        else:
            plain[_stem(path)].append(path)

    stems = {_stem(path) for path in here.texts}
    for name, paths in plain.items():
        if name in stems and name not in groups:
            groups[name].images[PLAIN] = paths
        else:
            reason = "the name ends neither in _start nor in _end" + (
                f"; a {name}.txt would make it a sample without inputs" if name not in groups else ""
            )
            found.unused += [(found.relative(path), reason) for path in paths]

    captions = []
    for path in here.texts:
        name, order = _stem(path), 0
        if name not in groups and (role := ROLE.fullmatch(name)) and not role["number"]:
            name, order = role["name"], 1 if role["role"].lower() == "end" else 2
        captions.append((order, name, path))
    _add_captions(found, groups, captions)

    def named(name: str, role: str) -> str:
        return f"{name}_{role} image"

    _build(found, groups, named)
    return found


def _by_folders(root: Path, here: _Listing, before: _Listing, after: _Listing) -> Match:
    found, groups = Match(root), defaultdict(_Group)
    found.layout = f"equal names in {found.relative(before.folder)} and {found.relative(after.folder)}"
    for listing, role in ((before, 0), (after, END)):
        for path in listing.images:
            groups[_stem(path)].images[role].append(path)
        found.unused += [(found.relative(path), "a folder in a folder") for path in listing.folders]
        found.unused += [(found.relative(path), reason) for path, reason in listing.others]
    found.unused += [(found.relative(path), f"outside {found.layout.split(' in ')[1]}") for path in here.images]
    places = enumerate((after, before, here))
    _add_captions(found, groups, [(i, _stem(path), path) for i, listing in places for path in listing.texts])

    def named(name: str, role: str) -> str:
        return f"{name} image in {found.relative((after if role == END else before).folder)}"

    _build(found, groups, named)
    return found


def _add_captions(found: Match, groups: dict[str, _Group], captions: list[tuple[int, str, Path]]) -> None:
    for _, name, path in sorted(captions, key=lambda c: (c[0], natural_key(str(c[2])))):
        if name in groups:
            groups[name].captions.append(path)
        else:
            file = found.relative(path)
            found.unused.append((file, "a caption without images"))
            message = f"{file} is a caption without images. Add the images, or take it out."
            found.findings.append(Finding("error", "caption-without-images", name, message))


def _build(found: Match, groups: dict[str, _Group], named) -> None:
    """Make a sample of every complete group; the files of the others are named with what is wrong."""
    by_case = defaultdict(set)
    for name in groups:
        by_case[name.casefold()].add(name)
    for name in sorted(groups, key=natural_key):
        group, errors = groups[name], []
        numbers = sorted(role for role in group.images if isinstance(role, int))
        for paths in group.images.values():
            if len(paths) > 1:
                files = " and ".join(found.relative(path) for path in paths)
                errors.append(("duplicate", f"{files} take the same place. Keep one."))
        if PLAIN not in group.images:
            twins = sorted(by_case[name.casefold()] - {name})
            hint = f" ({twins[0]} differs in upper and lower case)" if twins else ""
            if END not in group.images:
                errors.append(("missing-target", f"no {named(name, END)}{hint}"))
            if 0 not in numbers:
                errors.append(("missing-start", f"no {named(name, 'start')}{hint}"))
        if errors:
            found.findings += [Finding("error", code, name, message) for code, message in errors]
            files = [*(path for paths in group.images.values() for path in paths), *group.captions]
            found.unused += [(found.relative(path), errors[0][1]) for path in files]
            continue
        if numbers and numbers[-1] >= len(numbers):
            missing = next(i for i in range(numbers[-1]) if i not in numbers)
            message = f"there is no _start{missing}; the inputs are taken in the order of their numbers"
            found.findings.append(Finding("note", "gap", name, message))
        (end,) = group.images[END if END in group.images else PLAIN]
        starts = tuple(group.images[number][0] for number in numbers)
        found.samples.append(Sample(name, starts, end, group.captions[0] if group.captions else None))
        for path in group.captions[1:]:
            reason = f"{found.relative(group.captions[0])} is the caption"
            found.unused.append((found.relative(path), reason))
            message = f"{found.relative(path)} is not used: {reason}"
            found.findings.append(Finding("warning", "several-captions", name, message))
