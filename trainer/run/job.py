"""What is trained from what."""
import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .. import encoding
from ..data.dataset import About, PairedDataset
from ..data.held_out import held_out
from ..data.text import counted
from ..host import families, patches
from ..host.collect import CollectedDataset
from ..host.fingerprint import fingerprint
from ..loop import Settings
from ..lora import files
from ..lora.start import Start
from ..plan import Plan

Dataset = PairedDataset | CollectedDataset


@dataclass(frozen=True)
class Job:
    """A training that is wanted: of a LoRA for ``model``, on ``dataset``, for so many ``steps``.

    ``clip`` and ``vae`` are None for a collected dataset. ``given`` are pairs to score the LoRA on; without them some of
    the dataset are kept from training. It begins with ``start``, whose rank comes before that of the settings, or with
    no effect. ``name`` is the LoRA's in the loras folder. ``base_file`` is what the model was
    loaded from, "" where that is not known, and ``lora_files`` are on it; ``graph`` is the prompt and workflow, kept in
    the file, or None for a file that says nothing of what the user wrote.
    """

    model: Any
    clip: Any
    vae: Any
    dataset: Dataset
    settings: Settings
    steps: int
    learning_rate: float
    name: str
    given: Dataset | None = None
    start: Start | None = None
    base_file: str = ""
    lora_files: tuple[str, ...] = ()
    graph: dict[str, object] | None = None

    def __post_init__(self):
        if self.start:
            object.__setattr__(self, "settings", replace(self.settings, rank=self.start.rank))

    @cached_property
    def trained(self) -> Dataset:
        """What is trained on."""
        kept = self._kept
        return self.dataset.part({s.name for s in self.dataset.samples} - kept) if kept else self.dataset

    @cached_property
    def held_out(self) -> Dataset | None:
        """What the LoRA is scored on."""
        return self.given or (self.dataset.part(self._kept) if self._kept else None)

    @cached_property
    def _kept(self) -> set[str]:
        return set() if self.given or self.settings.hold_out == "none" else held_out(self.dataset.content)

    @cached_property
    def about(self) -> About:
        return self.trained.about()

    @cached_property
    def family(self) -> families.Family:
        return families.family_of(self.model.model, self.base_file, max(self.about.inputs))

    @cached_property
    def base(self) -> str:
        """The fingerprint of the base model."""
        return fingerprint(self.model)

    @cached_property
    def encoders(self) -> list[str]:
        """Those of text encoder and VAE, where there are pictures to encode."""
        paired = isinstance(self.dataset, PairedDataset) or isinstance(self.given, PairedDataset)
        return encoding.encoders_fingerprint(self.clip, self.vae) if paired else []

    @cached_property
    def wants_negative(self) -> bool:
        """Whether pictures are sampled against a negative."""
        return families.wants_negative(self.family, [self.base_file, *self.lora_files])

    @property
    def cooling(self) -> int:
        """How many of the last steps are cooled down."""
        return self.settings.cooling(self.steps)

    @cached_property
    def key(self) -> str:
        """A hash of everything that the run is trained from, beyond the number of steps."""
        encoders = self.encoders if isinstance(self.dataset, PairedDataset) else []
        base = [self.base, self.family.name, families.REVISION, *encoders]
        settings = self.settings.of_training()
        parts = {"dataset": self.trained.fingerprint, "base": base, "settings": settings, "learning_rate": self.learning_rate}
        if self.start:  # what is off is no part, so that runs of older versions are known still
            parts |= {"start": self.start.digest}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @cached_property
    def scored_on(self) -> str:
        """What tells the pairs that are held out from others; other pairs to score on make no other training."""
        return self.held_out.fingerprint[:10] if self.held_out else ""

    def words(self) -> dict:
        """The same in words, for whoever opens the run's folder."""
        return {
            "key": self.key, "name": self.name, "dataset": self.about.name, "samples": [s.name for s in self.trained.samples],
            "held_out": [s.name for s in self.held_out.samples] if self.held_out else [], "base": self.base_file or self.family.name,
            "family": self.family.name, "settings": self.settings.of_training(), "learning_rate": self.learning_rate,
        }  # fmt: skip

    def header(self, name: str, step: int, seconds: float, plan: Plan | None) -> dict[str, str]:
        """What the file of its LoRA, called so, says of itself after so many steps."""
        return files.metadata(
            name, self.key, self.family.name, self.about, self.settings, step, self.learning_rate, seconds, self.base,
            self.base_file, self.graph, str(plan),
        )  # fmt: skip

    def warnings(self) -> list[str]:
        """What to say before it begins."""
        references = max(self.about.inputs)
        found = [*(self.start.warnings if self.start else []), families.distilled_warning(self.family, [self.base_file, *self.lora_files]), *patches.warnings(self.model)]
        if patches.strangers(self.model) and fingerprint(self.model) != self.base:
            found.append("What is on the model cannot be known again, so each queue that runs this node trains anew.")
        if isinstance(self.dataset, PairedDataset):
            found.append(families.release_warning(self.family, self.base_file, references))
            found.append(encoding.caption_warning(self.clip, self.dataset))
        return [warning for warning in found if warning]

    def summary(self, steps: int) -> str:
        """The first words of the report on so many steps."""
        count = counted(len(self.trained.samples), "sample")
        if self.held_out:
            count += f" and {len(self.held_out.samples)} held out"
        return f"{count}, {counted(steps, 'step')} of {self.settings.samples}, rank {self.settings.rank}, learning rate {self.learning_rate:g}"
