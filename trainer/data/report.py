"""The pair doctor: what is wrong with a dataset, what is odd about it, and what to do next."""
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import numpy as np

from . import images
from .images import Header
from .pairs import Finding, Match, Sample
from .pixels import Measured
from .text import counted

# Samples that a concept needs, from the number on: what they are enough for.
ENOUGH = [(1, "too few for most edits; a simple one takes 15-30"), (15, "enough for a simple edit (15-30)"),
          (30, "enough for an edit of medium difficulty (30-60)"), (60, "enough for a complex edit (60-100 or more)")]  # fmt: skip
STEPS_A_PAIR = 50  # at batch size 1: 1,000 for 20 pairs
FEW = 5  # samples of one kind below which a use case is thinly covered
ALIKE = 0.5  # share of words in common from which two captions are of one kind
CLOSE = 24  # of 255, mean difference of the tiny pictures up to which two inputs are of one kind
MOST_KINDS = 12  # a dataset with more kinds than this is not made of kinds
SHIFTED = 0.3 / 256  # of the long side; a smaller shift is not told from noise
ZOOMED = 0.006  # a smaller zoom is not told from noise
LONG_CAPTION = 2000  # characters, about 500 tokens; most text encoders read 77, 256 or 512
UPSCALED = 1.02  # enlarging on the side; below it is rounding

CHECKLIST = (
    "The images cover every way in which the LoRA will be used",
    "The names are right: every file is used",
    "Captions are there, or are not needed",
    "Steps are set (start with 1,000)",
    "The learning rate is set (start with 1e-4)",
    "It is trained",
    "It is tested on inputs that it was not trained on",
)


@dataclass
class Report:
    """What was found in a dataset. ``captions`` are by sample name, as trained on; ``checked`` says whether the pixels
    were looked at; ``headers`` and ``measured`` are by sample name."""

    name: str
    found: Match
    captions: dict[str, str]
    resolution: int
    headers: dict[str, list[Header]] = field(default_factory=dict)
    measured: dict[str, Measured] = field(default_factory=dict)
    checked: bool = False

    @property
    def findings(self) -> list[Finding]:
        """Errors first, then warnings and notes."""
        return sorted(self.found.findings, key=lambda f: ("error", "warning", "note").index(f.level))

    def grouped(self) -> list[Finding]:
        """The findings with one entry for all samples that share a message, to be read by people."""
        alike = defaultdict(list)
        for finding in self.findings:
            alike[finding.level, finding.code, finding.message].append(finding.sample)
        grouped = []
        for key, names in alike.items():
            names = [*names[:3], f"{len(names) - 3} more"] if len(names) > 4 else names
            grouped.append(Finding(*key[:2], None if None in names else _listed(names), key[2]))
        return grouped

    def errors(self) -> list[Finding]:
        return [finding for finding in self.found.findings if finding.level == "error"]

    @property
    def steps(self) -> int:
        """How many training steps to start with."""
        return len(self.found.samples) * STEPS_A_PAIR

    def counts(self) -> dict:
        samples, levels = self.found.samples, Counter(finding.level for finding in self.found.findings)
        return {
            "samples": len(samples),
            "pairs": sum(bool(sample.starts) for sample in samples),
            "unpaired": sum(not sample.starts for sample in samples),
            "references": sorted({len(sample.starts) for sample in samples if sample.starts}),
            "captions": sum(sample.has_caption for sample in samples),
            "errors": levels["error"],
            "warnings": levels["warning"],
            "unused": len(self.found.unused),
        }

    def as_dict(self) -> dict:
        """For programs; file names are relative to the folder."""
        relative = self.found.relative
        return {
            "samples": [
                {
                    "name": sample.name,
                    "starts": [relative(path) for path in sample.starts],
                    "end": relative(sample.end),
                    "caption": self.captions.get(sample.name) or ("" if sample.has_caption else None),
                    "caption_file": relative(sample.caption_file) if sample.caption_file else None,
                }
                for sample in self.found.samples
            ],
            "unused": [{"file": file, "reason": reason} for file, reason in self.found.unused],
            "findings": [asdict(finding) for finding in self.findings],
        }

    def text(self, most: int = 10**9) -> str:
        """The report to read, at most ``most`` lines a section."""
        count = self.counts()
        inputs = counted(*count["references"], "input image") if len(count["references"]) == 1 else (
            f"{_listed(count['references'], 'or')} input images")  # fmt: skip
        kinds = [f"{counted(count['pairs'], 'pair')} with {inputs} each"]
        if count["unpaired"]:
            without = f"{counted(count['unpaired'], 'sample')} without inputs (text to image)"
            kinds = kinds[: bool(count["pairs"])] + [without]
        empty = sum(f.code == "empty-caption" for f in self.found.findings)
        head = [
            f"{self.name}: {' and '.join(kinds if count['samples'] else ['no samples'])}, {count['captions']} with a "
            f"caption{f' ({empty} empty)' if empty else ''}",
            f"found by: {self.found.layout}",
        ]
        by_level = defaultdict(list)
        for finding in self.grouped():
            by_level[finding.level].append(f"{finding.sample}: {finding.message}" if finding.sample else finding.message)
        sections = {
            "errors (these samples are left out)": by_level["error"],
            "warnings": by_level["warning"],
            "notes": by_level["note"],
            "not used": [f"{file} ({reason})" for file, reason in self.found.unused],
            "samples": [self._line(sample) for sample in self.found.samples],
            "advice": self.advice(),
            "checklist": self.checklist(),
        }
        lines = head
        for title, entries in sections.items():
            if entries:
                more = [f"... and {len(entries) - most} more"] if len(entries) > most else []
                lines += ["", title, *(f"  {entry}" for entry in [*entries[:most], *more])]
        return "\n".join(lines)

    def _line(self, sample: Sample) -> str:
        starts = " + ".join(self.found.relative(path) for path in sample.starts)
        caption = self.captions.get(sample.name)
        sizes = [f"{h.width}x{h.height}" for h in self.headers.get(sample.name, [])]
        size = ", ".join(dict.fromkeys(sizes))
        return (
            f"{sample.name}: {starts + ' -> ' if starts else ''}{self.found.relative(sample.end)}"
            f"{f'  {size}' if size else ''}{f'  {caption!r}' if caption else '  no caption'}"
        )

    def advice(self) -> list[str]:
        samples = self.found.samples
        if not samples:
            return []
        enough = [text for number, text in ENOUGH if len(samples) >= number][-1]
        lines = [
            f"{counted(len(samples), 'sample')} {'is' if len(samples) == 1 else 'are'} {enough}",
            f"train about {self.steps:,} steps ({STEPS_A_PAIR} a sample at batch size 1; 1,000 for 20)",
        ]
        if self.headers:
            sizes = Counter((h[-1].width, h[-1].height) for h in self.headers.values())
            shapes = {images.bucket(size, self.resolution) for size in sizes}
            lines.append(
                "the targets are all of one size" if len(sizes) == 1
                else f"the targets have {len(sizes)} sizes, trained in {counted(len(shapes), 'shape')}; one shape learns fastest"
            )  # fmt: skip
        lines += self._coverage("captions", _caption_kinds(samples, self.captions))
        if self.measured:
            lines += self._coverage("pictures", _picture_kinds(samples, self.measured))
        return lines

    @staticmethod
    def _coverage(what: str, kinds: list[tuple[str, list[str]]] | None) -> list[str]:
        if kinds is None:
            return [f"the {what} are too varied to group by likeness"]
        if len(kinds) < 2:
            return [f"the {what} are all of one kind"] if kinds else []
        kinds = sorted(kinds, key=lambda kind: -len(kind[1]))
        described = [f"{label} ({len(names)})" for label, names in kinds]
        lines = [f"the {what} are of {len(kinds)} kinds: {'; '.join(described)}"]
        if thin := [f"{label} ({_listed(names[:3])})" for label, names in kinds if len(names) < FEW]:
            lines.append(f"kinds with fewer than {FEW} samples, add more if you need them: {'; '.join(thin)}")
        return lines

    def checklist(self) -> list[str]:
        """Seven lines, ticked where the files prove them."""
        samples = self.found.samples
        names = bool(samples) and not self.found.unused and not self.errors()
        captions = bool(samples) and all(self.captions.get(sample.name) for sample in samples)
        ticked = {CHECKLIST[1]: names, CHECKLIST[2]: captions}
        return [f"[{'x' if ticked.get(line) else ' '}] {line}" for line in CHECKLIST]


def _listed(words: Iterable, last: str = "and") -> str:
    *rest, end = map(str, words) if words else ["no"]
    return f"{', '.join(rest)} {last} {end}" if rest else end


def caption_findings(captions: dict[str, str], without: list[str], default: str, trigger: str) -> list[Finding]:
    """What the captions tell as they are trained on; ``without`` are the samples that have none of their own."""
    findings = []
    if without and not default and len(without) < len(captions):
        message = f"{counted(len(without), 'sample')} without a caption; write the captions or set a default caption"
        findings.append(Finding("warning", "no-caption", None, message))
    elif without and not default and not trigger:  # a trigger word alone may well be the whole instruction
        message = "no sample has a caption; write the captions, or set a default caption or a trigger word"
        findings.append(Finding("warning", "no-caption", None, message))
    for name, caption in captions.items():
        if len(caption) > LONG_CAPTION:
            message = f"the caption has {len(caption):,} characters; text encoders read about {LONG_CAPTION:,} at most"
            findings.append(Finding("warning", "long-caption", name, f"{message}. Shorten it."))
    return findings


def header_findings(sample: Sample, headers: list[Header], resolution: int, relative) -> list[Finding]:
    """What the sizes of a sample's images tell."""
    findings = []
    sizes = [(header.width, header.height) for header in headers]
    if sample.starts and sizes[0] != sizes[-1]:
        start, end = (f"{width}x{height}" for width, height in (sizes[0], sizes[-1]))
        if images.same_ratio(sizes[0], sizes[-1], images.SAME_RATIO):
            message = f"the input has {start}, the target {end} pixels"
            findings.append(Finding("warning", "sizes-differ", sample.name, message))
        else:
            message = f"the input ({start}) and the target ({end}) have different aspect ratios; crop them alike"
            findings.append(Finding("warning", "ratios-differ", sample.name, message))
    factors = []
    for size in sizes:
        width, height = images.bucket(size, resolution)
        factors.append((max(width / size[0], height / size[1]), f"{size[0]}x{size[1]}"))
    if max(factors)[0] > UPSCALED:
        factor, size = max(factors)
        message = f"enlarged {factor:.1f} times, from {size} pixels, to train at {resolution}"
        findings.append(Finding("warning", "upscaled", sample.name, message))
    if any(header.deep for header in headers):
        message = (
            f"{_roles(sample, [header.deep for header in headers])} grey of more than 8 bits; its tones are kept, but "
            "ComfyUI's LoadImage may clip them to white. Save it with 8 bits."
        )
        findings.append(Finding("warning", "more-than-8-bits", sample.name, message))
    other = next((header for header in headers[:-1] if not images.same_profile(header, headers[-1])), None)
    if other:
        message = (
            f"an input is in {other.profile or 'sRGB'}, the target in {headers[-1].profile or 'sRGB'}; ComfyUI's "
            "LoadImage reads no colour profile, so the LoRA would learn the difference. Convert both to sRGB."
        )
        findings.append(Finding("warning", "profiles-differ", sample.name, message))
    animated = [relative(path) for path, header in zip(sample.images, headers) if header.animated]
    if animated:
        message = f"{', '.join(animated)}: only the first frame is used"
        findings.append(Finding("note", "first-frame", sample.name, message))
    return findings


def alpha_findings(sample: Sample, measured: Measured, background: str | None) -> list[Finding]:
    """What becomes of transparent images; ``background`` is a colour, or None where their alpha is left out."""
    transparent = [look.transparent for look in measured.looks]
    if background:  # the target is the user's own choice then, but not what a graph loads as its inputs
        transparent[-1] = False
    if not any(transparent):
        return []
    what = f"{_roles(sample, transparent)} transparent parts"
    message = (
        f"{what}, put over {background} here; ComfyUI's LoadImage gives what lies under them, so put the inputs of your "
        f"graph over {background} as well" if background else
        f"{what}; what lies under them is trained on, as ComfyUI's LoadImage gives it. Set background to a colour to put "
        "them over it"
    )  # fmt: skip
    return [Finding("warning", "transparent", sample.name, message)]


def _roles(sample: Sample, chosen: list[bool]) -> str:
    """Which of a sample's images are ``chosen``, as the subject of a sentence that goes on behind "have"."""
    names = ["an input"] * any(chosen[:-1]) + ["the target" if sample.starts else "the image"] * chosen[-1]
    return f"{_listed(names)} {'have' if len(names) > 1 else 'has'}"


def pair_findings(sample: Sample, measured: Measured, end: Header) -> list[Finding]:
    """What comparing a target with its first input tells."""
    if (comparison := measured.comparison) is None:
        return []
    if measured.looks[0].pixels == measured.looks[-1].pixels:
        return [Finding("warning", "start-equals-end", sample.name, "the input and the target are the same picture")]
    if comparison.looks_same:
        message = "the input and the target look the same; is the edit really in the target?"
        return [Finding("warning", "start-equals-end", sample.name, message)]
    if (found := comparison.alignment) is None:
        return []
    x, y, long = found.x * end.width, found.y * end.height, max(end.width, end.height)
    parts = []
    if max(abs(x), abs(y)) > max(SHIFTED * long, 0.3):
        ways = [(x, "right", "left"), (y, "down", "up")]
        moved = [f"{abs(by):.1f} pixels {plus if by > 0 else minus}" for by, plus, minus in ways if abs(by) >= 0.05]
        parts.append(f"shifted {' and '.join(moved)}")
    if abs(found.zoom - 1) > max(ZOOMED, 1.5 / long):
        parts.append(f"zoomed {'in' if found.zoom > 1 else 'out'} by {abs(found.zoom - 1):.1%}")
    if not parts:
        return []
    message = f"the target is {' and '.join(parts)} against the input; the LoRA would learn that"
    return [Finding("warning", "misaligned", sample.name, message)]


def duplicate_findings(samples: list[Sample], measured: dict[str, Measured], relative) -> list[Finding]:
    """The same image as input of two samples, or as target of two; a further input (a hat) may well come again."""
    groups = defaultdict(list)
    for sample in samples:
        looks = measured[sample.name].looks
        groups[looks[-1].pixels].append((sample.name, sample.end))
        if sample.starts and looks[0].pixels != looks[-1].pixels:
            groups[looks[0].pixels].append((sample.name, sample.starts[0]))
    findings = []
    for entries in groups.values():
        if len(entries) > 1:
            files = _listed([relative(path) for _, path in entries])
            message = f"{files} are the same picture; is that meant?"
            findings.append(Finding("warning", "same-image", entries[0][0], message))
    return findings


def _caption_kinds(samples: list[Sample], captions: dict[str, str]) -> list[tuple[str, list[str]]] | None:
    """Captions grouped by the words that they share; None when they are too varied. Labels are the first captions."""
    kinds: list[tuple[frozenset[str], str, list[str]]] = []
    for sample in samples:
        caption = captions.get(sample.name) or ""
        words = frozenset(caption.casefold().replace(",", " ").replace(".", " ").split())
        for other, _, names in kinds:
            if words == other or len(words & other) >= ALIKE * len(words | other):
                names.append(sample.name)
                break
        else:
            if len(kinds) == MOST_KINDS:
                return None
            short = " ".join(caption.split())
            kinds.append((words, f"“{short[:40]}{'…' * (len(short) > 40)}”" if caption else "no caption", [sample.name]))
    return [(label, names) for _, label, names in kinds]


def _picture_kinds(samples: list[Sample], measured: dict[str, Measured]) -> list[tuple[str, list[str]]] | None:
    """First images grouped by what their tiny pictures have in common; labels are the first samples."""
    kinds: list[tuple[np.ndarray, list[str]]] = []
    for sample in samples:
        thumb = np.array(measured[sample.name].looks[0].thumb, np.int16)
        for other, names in kinds:
            if np.abs(thumb - other).mean() <= CLOSE:
                names.append(sample.name)
                break
        else:
            if len(kinds) == MOST_KINDS:
                return None
            kinds.append((thumb, [sample.name]))
    return [(f"like {names[0]}", names) for _, names in kinds]
