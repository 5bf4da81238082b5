"""Which files of a folder make which sample: `NAME_start`, `NAME_start1`, ..., `NAME_end` and `NAME.txt`, the folders of
equal names and the lists of files that other trainers use.

Only names are looked at here, so that ten thousand samples are matched in a moment.
"""
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, product
from pathlib import Path

from . import lists
from .text import printable

IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff",
    ".gif", ".avif",
}  # fmt: skip
CAPTION_SUFFIXES = {".txt", ".caption"}
OTHER_IMAGES = {
    ".heic", ".heif", ".hif", ".jxl", ".jxr", ".jp2", ".j2k", ".jpx", ".psd", ".psb", ".xcf", ".kra", ".svg", ".tga", ".ico",
    ".exr", ".hdr", ".dds", ".ppm", ".pgm", ".pnm", ".qoi", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2",
    ".pef", ".srw", ".pdf", ".eps", ".ai",
}  # fmt: skip
OTHER_TEXTS = {".text", ".md", ".rtf", ".doc", ".docx", ".odt", ".tags", ".cap", ".prompt", ".tsv", ".xml", ".parquet"}

INPUTS, TARGETS = ("start", "before", "input", "control", "source"), ("end", "after", "output", "target")
_INPUT, _TARGET = "|".join(INPUTS), "|".join(TARGETS)
ROLE = re.compile(rf"(?P<name>.*)_((?P<input>{_INPUT})(?P<number>[0-9]*)|(?P<target>{_TARGET}))",
                  re.IGNORECASE | re.DOTALL)  # fmt: skip
# What is not written like that but means it: `a-start`, `start_a`, and a file manager's copy `a_start (1)`.
NEAR = re.compile(rf"(?P<name>.+?)[ ._-]+((?P<input>{_INPUT})(?P<number>[0-9]*)|{_TARGET})(?P<copy>[ (~–-].*|_[0-9]+)?",
                  re.IGNORECASE | re.DOTALL)  # fmt: skip
IN_FRONT = re.compile(rf"((?P<input>{_INPUT})(?P<number>[0-9]*)|{_TARGET})[ ._-]+(?P<name>.+)", re.IGNORECASE | re.DOTALL)
# `control_2`, `edited-images`: folders as other trainers have them beside each other; ai-toolkit takes several of control.
FOLDER = re.compile(
    r"(?P<word>[a-z]+?)s?([-_ .]?(images?|dir|directory|folder))?[-_ .]?(?P<number>[0-9]*)", re.IGNORECASE
)
OTHER_SIDE = {"start": "end", "before": "after", "input": "output", "control": "target", "source": "target",
              "end": "start", "after": "before", "output": "input", "target": "control"}  # fmt: skip
INPUT_FOLDERS = {*INPUTS, "reference", "original", "condition", "conditioning"}
BESIDE_TARGETS = {"control", "reference", "condition", "conditioning"}  # for ai-toolkit they may lie among the targets
TARGET_FOLDERS = {*TARGETS, "edited", "result", "image"}
CAPTION_FOLDERS = {"caption", "text", "txt", "prompt"}
NUMBERED = re.compile(r"(?P<name>.+)_(?P<number>[0-9]{1,4})", re.DOTALL)  # several control images of musubi-tuner

BY_SUFFIX = "NAME_start and NAME_end in one folder"
OTHER_KIND = "images of this kind are not read", "convert it to PNG or JPEG"
OTHER_TEXT = "captions are called NAME.txt", ""
OTHER_FOLDER = "a folder; only the files of one folder make a dataset"
NO_LIST = "no list of images that are in this folder"
NO_ROLE = "the name ends neither in _start nor in _end"
LEFT_OUT = "left_out.txt"  # names samples that are not to be used, one a line
CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}
HIDDEN = "hidden, or a file of the operating system"
DEEPEST = 4  # folders that hold nothing but one folder, as archives often do
FEW = 3  # files that one message names

END, PLAIN = "end", "plain"  # roles of an image; the role of an input is its number


class DatasetError(ValueError):
    """A folder or a file of it cannot be used; the message names it and says what to do."""

    __module__ = "builtins"  # ComfyUI puts the whole name of an error's class in front of the message


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
    """What shares a base name: input images in order, the target, and perhaps a file with the caption, or the caption
    itself.

    Without inputs it is unpaired, an ordinary text-to-image sample.
    """

    name: str
    starts: tuple[Path, ...]
    end: Path
    caption_file: Path | None = None
    caption: str | None = None

    @property
    def images(self) -> tuple[Path, ...]:
        return (*self.starts, self.end)

    @property
    def has_caption(self) -> bool:
        return self.caption_file is not None or self.caption is not None


@dataclass
class Match:
    """The samples of a folder in natural order, and every other file of it with the reason it is not used."""

    folder: Path
    layout: str = BY_SUFFIX
    samples: list[Sample] = field(default_factory=list)
    unused: list[tuple[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    missed: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[Sample, Path] = field(default_factory=dict)  # what would be samples, and the file that says not to

    def relative(self, path: Path) -> str:
        """The file's name as it is written in reports: relative to the folder, with forward slashes."""
        return printable(path.relative_to(self.folder).as_posix())

    def miss(self, path: Path, why: str, advice: str = "") -> None:
        """Leave out what its owner may well have meant to be used; that gives a warning."""
        file = self.relative(path)
        self.unused.append((file, f"{why}; {advice}" if advice else why))
        self.missed.setdefault(why, []).append(f"{file} ({advice})" if advice else file)

    def skip(self, entries: list[tuple[str, str]]) -> None:
        """Name what was left out earlier, with the reasons, when a zip was unpacked."""
        for file, reason in entries:
            if Path(file).suffix.lower() in IMAGE_SUFFIXES | OTHER_IMAGES | CAPTION_SUFFIXES | OTHER_TEXTS:
                self.missed.setdefault(reason, []).append(printable(file))
            self.unused.append((printable(file), reason))
        self.tell_missed()

    def tell_missed(self) -> None:
        for why, files in self.missed.items():
            shown = [*files[:FEW], *([f"{len(files) - FEW} more"] if len(files) > FEW else [])]
            message = f"{listed(shown)} {'is' if len(files) == 1 else 'are'} not used: {why}"
            self.findings.append(Finding("warning", "not-used", None, message))
        self.missed = {}

    def error(self, code: str, name: str | None, message: str) -> None:
        self.findings.append(Finding("error", code, name, message))

    def leave_out(self, errors: dict[str, Finding]) -> None:
        """Take the samples of these names out; their files are named with the reason."""
        for sample in self.samples:
            if error := errors.get(sample.name):
                files = [*sample.images, *([sample.caption_file] if sample.caption_file else [])]
                self.unused += [(self.relative(path), error.message) for path in files]
        self.samples = [sample for sample in self.samples if sample.name not in errors]
        self.findings += errors.values()

    def leave_out_listed(self, path: Path) -> None:
        """Take the samples out that a `left_out.txt` names."""
        file = self.relative(path)
        try:
            names = dict.fromkeys(lists.names(path))
        except (OSError, UnicodeDecodeError):
            message = f"{file} cannot be read as UTF-8 text, so it leaves nothing out. Save it as UTF-8."
            self.findings.append(Finding("warning", "left-out", None, message))
            return
        chosen = {sample.name: sample for sample in self.samples if sample.name in names}
        self.samples = [sample for sample in self.samples if sample.name not in chosen]
        for name, sample in chosen.items():
            self.left_out[sample] = path
            files = [*sample.images, *([sample.caption_file] if sample.caption_file else [])]
            self.unused += [(self.relative(file), f"left out by {LEFT_OUT}") for file in files]
        if chosen:
            self.findings.append(Finding("note", "left-out", None, f"left out by {file}: {', '.join(chosen)}"))
        if unknown := [name for name in names if name not in chosen]:
            message = f"{file} names {listed(unknown[:FEW])}, which is no complete sample here. Take it out, or mend the name."
            self.findings.append(Finding("warning", "left-out", None, message))


def natural_key(text: str) -> list:
    """A sort key that puts `photo2` before `photo10`, the same on every system."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split("([0-9]+)", folded)] + [
        (0, 0, text)
    ]


def match(folder: Path, called: str = "") -> Match:
    """Match the files of ``folder`` to samples: by the suffixes of their names, as folders of equal names, or as a list
    tells. ``called`` is what messages call the folder.

    Raises:
        DatasetError: there is no such folder, or it cannot be read.
    """
    folder, called = Path(folder), called or printable(str(folder))
    try:
        found = _match(folder, _Listing(folder))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise DatasetError(f"There is no folder {called}. Put your pairs into one and choose it here.") from error
    except OSError as error:
        raise DatasetError(f"The folder {called} cannot be read ({error.strerror}).") from error
    found.tell_missed()
    if not found.samples:
        if found.unused:
            telling = sorted(found.unused, key=lambda entry: entry[1] == HIDDEN)[:5]
            reasons = "; ".join(f"{file}: {reason}" for file, reason in telling)
            message = f"holds no complete pair. A pair is NAME_start.jpg and NAME_end.jpg. Found: {reasons}"
        else:
            message = "is empty. Put NAME_start.jpg and NAME_end.jpg files into it."
        found.error("no-samples", None, f"{called} {message}")
    return found


def _match(root: Path, here: "_Listing", depth: int = 0, captions: "tuple[_Listing, ...]" = ()) -> Match:
    inner = {path: listing for path in here.folders if (listing := here.inside(path))}
    beside = [path for path in inner if _kind(path)[0] in CAPTION_FOLDERS and inner[path].texts]
    captions = (*captions, *map(inner.get, beside))
    best, used = _by_suffix(root, here, captions), beside
    for befores, after in product(_numbered(inner, INPUT_FOLDERS), chain(*_numbered(inner, TARGET_FOLDERS))):
        candidate = _by_folders(root, here, [inner[path] for path in befores], inner[after], captions)
        if len(candidate.samples) > len(best.samples) or not (best.samples or here.images):
            best, used = candidate, [*befores, after, *beside]
    for befores in _numbered(inner, BESIDE_TARGETS) if here.images else ():
        candidate = _by_folders(root, here, [inner[path] for path in befores], here, captions)
        if _worth(candidate) > _worth(best):
            best, used = candidate, [*befores, *beside]
    others = [path for path in here.folders if path not in used]
    if used is beside and not here.images and len(others) == 1 and others[0] in inner and depth < DEEPEST:
        best, used = _match(root, inner[others[0]], depth + 1, captions), [*used, *others]
        for path in here.texts:
            best.miss(path, "a caption without images")
    chosen = None
    for path in here.lists:
        entries = lists.read(path)
        if len(entries) >= max(1, len(best.samples)):
            candidate = _by_list(root, here, path, entries)
            if _worth(candidate) > _worth(best):
                best, used, chosen = candidate, here.folders, path
    for path in here.lists:
        if path != chosen:
            best.miss(path, NO_LIST)
    for path in here.folders:
        if path not in used:
            _miss_folder(best, path, inner.get(path))
    best.unused += [(best.relative(path), reason) for path, reason in here.others]
    for path, why, advice in here.missed:
        best.miss(path, why, advice)
    if here.left_out:
        best.leave_out_listed(here.left_out)
    best.unused.sort(key=lambda entry: natural_key(entry[0]))
    return best


def _worth(found: Match) -> tuple[int, bool, bool]:
    samples = found.samples
    return len(samples), any(sample.starts for sample in samples), any(sample.has_caption for sample in samples)


def _miss_folder(found: Match, path: Path, listing: "_Listing | None") -> None:
    if listing is None:
        found.miss(path, "a folder that cannot be read")
    elif listing.images or listing.texts or listing.missed:
        found.miss(path, OTHER_FOLDER, "put its files beside the others, as NAME_start1 or the like, to use them")
    else:
        found.unused.append((found.relative(path), OTHER_FOLDER))


class _Listing:
    """The entries of one folder in natural order, by kind; an entry that cannot be looked at is one of ``missed``."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.images, self.texts, self.lists, self.folders = [], [], [], []
        self.left_out: Path | None = None
        self.others: list[tuple[Path, str]] = []
        self.missed: list[tuple[Path, str, str]] = []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: natural_key(entry.name)):
                self._add(folder / entry.name, entry)

    def _add(self, path: Path, entry: os.DirEntry) -> None:
        suffix = path.suffix.lower()
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # it may not be looked at, or is a link that leads round in a circle
            is_folder = is_file = False
        if path.name.startswith(".") or path.name.lower() in CLUTTER:
            self.others.append((path, HIDDEN))
        elif is_folder:
            self.folders.append(path)
        elif not is_file:
            reading = suffix in IMAGE_SUFFIXES or suffix in CAPTION_SUFFIXES
            reason = "a link that leads nowhere, or no file that can be read"
            self.missed.append((path, reason, "")) if reading else self.others.append((path, reason))
        elif path.name == LEFT_OUT:
            self.left_out = path
        elif suffix in CAPTION_SUFFIXES:
            self.texts.append(path)
        elif suffix in lists.SUFFIXES:
            self.lists.append(path)
        elif suffix in IMAGE_SUFFIXES:
            self.images.append(path)
        elif suffix in OTHER_IMAGES:
            self.missed.append((path, *OTHER_KIND))
        elif suffix in OTHER_TEXTS:
            self.missed.append((path, *OTHER_TEXT))
        elif suffix == ".zip":
            self.others.append((path, "an archive; choose it itself, or unpack it"))
        else:
            self.others.append((path, "neither an image nor a .txt caption"))

    def inside(self, path: Path) -> "_Listing | None":
        """What a folder in it holds, or None where that cannot be read."""
        try:
            return _Listing(path)
        except OSError:
            return None


def listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def _kind(folder: Path) -> tuple[str, int]:
    """The word that a folder's name says, in the singular, and the number behind it."""
    kind = FOLDER.fullmatch(folder.name)
    return (kind["word"].lower(), int(kind["number"] or 0)) if kind else ("", 0)


def _numbered(inner: Iterable[Path], words: set[str]) -> list[list[Path]]:
    """The folders that are called one of ``words``: for each, those that differ in their number, in its order."""
    groups = defaultdict(list)
    for path in sorted(inner, key=lambda path: _kind(path)[1]):
        groups[_kind(path)[0]].append(path)
    return [groups[word] for word in groups if word in words]


def _stem(path: Path) -> str:
    return unicodedata.normalize("NFC", printable(path.stem))  # macOS writes é as two characters, others as one


class _Group:
    """The files of one base name: images by role, captions in the order in which they count, and the words by which
    their names tell the roles."""

    def __init__(self):
        self.images: dict[int | str, list[Path]] = defaultdict(list)
        self.captions: list[Path] = []
        self.words: set[str] = set()

    def number_inputs(self, first: int = 0) -> None:
        """Give the inputs the numbers from ``first`` on, in their order."""
        inputs = sorted(role for role in self.images if role not in (END, PLAIN))
        numbered = {number: self.images.pop(role) for number, role in enumerate(inputs, first)}
        self.images.update(numbered)


def _by_suffix(root: Path, here: _Listing, captions: tuple[_Listing, ...]) -> Match:
    found, groups = Match(root), defaultdict(_Group)
    if here.folder != root:
        found.layout += f" ({found.relative(here.folder)})"
    texts = [path for listing in (here, *captions) for path in listing.texts]
    stems = {_stem(path) for path in texts}
    roles = {path: ROLE.fullmatch(_stem(path)) for path in here.images}
    sides = defaultdict(set)
    for role in filter(None, roles.values()):
        sides[role["name"]].add(bool(role["input"]))
    plain: dict[str, list[Path]] = defaultdict(list)
    for path, role in roles.items():
        stem = _stem(path)
        if not role:
            plain[stem].append(path)
            continue
        word = (role["input"] or role["target"]).lower()
        if not role["name"]:
            message = f"there is no name in front of {stem}; call it photo001{stem}{path.suffix}"
            found.unused.append((found.relative(path), message))
            found.error("no-name", None, f"{found.relative(path)}: {message}")
        elif stem in stems and len(sides[role["name"]]) == 1 and word not in ("start", "end"):
            plain[stem].append(path)  # an unpaired sample that happens to be called `my_output`
        else:
            groups[role["name"]].images[int(role["number"] or 0) if role["input"] else END].append(path)
            groups[role["name"]].words.add(word)
    for group in groups.values():
        if "start" not in group.words:  # others count from 1
            group.number_inputs()
    paired = set(groups)
    for name, paths in plain.items():
        if name in stems and name not in paired:
            groups[name].images[PLAIN] = paths
        else:
            for path in paths:
                found.miss(path, NO_ROLE, _advice(path, name in paired))

    ordered = []
    for path in texts:
        name, order = _stem(path), 0
        if name not in groups and (role := ROLE.fullmatch(name)) and not role["number"]:
            name, order = role["name"], 2 if role["input"] else 1
        ordered.append((order, name, path))
    _add_captions(found, groups, ordered)
    for listing in captions:
        _name_rest(found, listing, listing.images)

    def named(name: str, role: str) -> str:
        word = next((OTHER_SIDE[word] for word in sorted(groups[name].words) if (word in INPUTS) == (role == END)), role)
        hints = [f" ({found.relative(path)} may be it; call it {name}_{word}{path.suffix})" for path in plain.get(name, [])]
        return f"{name}_{word} image{''.join(hints[:1])}"

    _build(found, groups, named)
    return found


def _advice(path: Path, paired: bool) -> str:
    """What to call an image whose name tells no role; ``paired``: there is a pair of its name."""
    stem, suffix = printable(path.stem), path.suffix
    if near := NEAR.fullmatch(stem) or IN_FRONT.fullmatch(stem):
        copy = near.groupdict().get("copy") or ""
        role = f"start{near['number']}" if near["input"] else "end"
        return f"{'if it is no copy, ' if copy else ''}call it {near['name']}{copy}_{role}{suffix}"
    advice = f"call it {stem}_start{suffix} or {stem}_end{suffix}"
    return advice if paired else f"{advice}, or write a {stem}.txt for a sample without inputs"


def _name_rest(found: Match, listing: _Listing, images: list[Path]) -> None:
    """Name everything of an inner folder that makes no sample: these images, and what is neither image nor caption."""
    for path in images:
        found.miss(path, f"not in the place of the images that are found by {found.layout}")
    if listing.left_out:
        found.miss(listing.left_out, f"{LEFT_OUT} counts in the folder itself")
    for path in listing.lists:
        found.miss(path, NO_LIST)
    for path in listing.folders:
        _miss_folder(found, path, listing.inside(path))
    for path, why, advice in listing.missed:
        found.miss(path, why, advice)
    found.unused += [(found.relative(path), reason) for path, reason in listing.others]


def _by_folders(
    root: Path, here: _Listing, befores: list[_Listing], after: _Listing, captions: tuple[_Listing, ...]
) -> Match:
    """Folders of equal names, the inputs' in order; of one name there may be several inputs, `NAME_0`, `NAME_1`, ...
    The targets may lie in ``here`` itself."""
    found, groups = Match(root), defaultdict(_Group)

    def place(listing: _Listing) -> str:
        return found.relative(listing.folder) if listing.folder != root else "the folder itself"

    places = listed([place(listing) for listing in (*befores, after)])
    found.layout = f"equal names in {places}"
    inputs, targets = ({_stem(path) for path in images} for images in (befores[0].images, after.images))
    for path in after.images:
        groups[_base(_stem(path), inputs)[0]].images[END].append(path)
    for i, listing in enumerate(befores):
        for path in listing.images:
            name, number = _base(_stem(path), targets, NUMBERED)
            groups[name].images[i, number].append(path)
    for group in groups.values():  # what is only in the second folder stays the second
        group.number_inputs(int(all(role[0] for role in group.images if role != END)))
    for listing in (*befores, after):
        if listing is not here:
            _name_rest(found, listing, [])
    for listing in captions:
        _name_rest(found, listing, listing.images)
    for path in here.images if after is not here else ():
        found.miss(path, f"outside {places}")
    listings = dict.fromkeys((after, *captions, *befores, here))  # each once
    ordered = [(i, path) for i, listing in enumerate(listings) for path in listing.texts]
    _add_captions(found, groups, [(i, _base(_stem(path), set(groups))[0], path) for i, path in ordered])

    def named(name: str, role: str) -> str:
        return f"{name} image in {place(after if role == END else befores[0])}"

    _build(found, groups, named)
    return found


def _base(stem: str, others: set[str], *patterns: re.Pattern) -> tuple[str, int]:
    """The name of the sample that a file of this stem belongs to, and its number among the inputs: its own where the
    ``others`` have the same, else what is left of it without a number or a role behind it."""
    if stem not in others:
        for pattern in patterns:
            if (match := pattern.fullmatch(stem)) and match["name"] in others:
                return match["name"], int(match["number"])
        if (role := ROLE.fullmatch(stem)) and role["name"]:
            return role["name"], int(role["number"] or 0)
    return stem, 0


def _by_list(root: Path, here: _Listing, path: Path, entries: list[lists.Entry]) -> Match:
    """The samples that a list names; paths in it are relative to its folder."""
    found, used, names = Match(root), set(), set()
    file = found.relative(path)
    found.layout = f"the list {file}"
    for number, entry in enumerate(entries, 1):
        images = {name: _within(here.folder, name) for name in (*entry.inputs, entry.target)}
        if missing := [name for name, image in images.items() if image is None]:
            message = f"{file}, entry {number}: there is no image {printable(missing[0])!r} in this folder"
            found.error("not-there", None, message)
            continue
        target = images[entry.target]
        name = found.relative(target.with_suffix(""))
        name = name if name not in names else f"{name} ({number})"
        names.add(name)
        starts = tuple(images[name] for name in entry.inputs)
        found.samples.append(Sample(name, starts, target, caption=entry.caption))
        used.update(images.values())
    found.samples.sort(key=lambda sample: natural_key(sample.name))
    _name_unlisted(found, here, file, used)
    return found


def _within(folder: Path, name: str) -> Path | None:
    """The image of this name in a folder or below it, or None."""
    top = Path(os.path.abspath(folder))
    path = Path(os.path.abspath(top / name.replace("\\", "/")))
    there = path.is_relative_to(top) and path.suffix.lower() in IMAGE_SUFFIXES and os.path.isfile(path)
    return folder / path.relative_to(top) if there else None


def _name_unlisted(found: Match, here: _Listing, file: str, used: set[Path]) -> None:
    """Name what a list does not: in ``here`` and in the folders in it that hold images of the list."""
    for path in (*here.images, *here.texts):
        if path not in used:
            found.miss(path, f"{file} does not name it")
    for path in here.folders:
        listing = here.inside(path)
        if listing is None or not any(image.is_relative_to(path) for image in used):
            _miss_folder(found, path, listing)
        else:
            _name_unlisted(found, listing, file, used)
            listing.folders = []
            _name_rest(found, listing, [])


def _add_captions(found: Match, groups: dict[str, _Group], captions: list[tuple[int, str, Path]]) -> None:
    for _, name, path in sorted(captions, key=lambda c: (c[0], c[2].suffix.lower() != ".txt", natural_key(str(c[2])))):
        if name in groups:
            groups[name].captions.append(path)
        else:
            file = found.relative(path)
            found.unused.append((file, "a caption without images"))
            found.error("caption-without-images", name, f"{file} is a caption without images. Add the images, or take it out.")


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
            for code, message in errors:
                found.error(code, name, message)
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
