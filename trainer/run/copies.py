"""Copies of a LoRA while it is trained, in the loras folder."""
import contextlib
from pathlib import Path

from ..host import apply
from ..lora import files
from ..plan import Plan
from ..state import State
from .folder import Folder
from .job import Job
from .places import SUFFIX, write_tensors
from .stages import beside


class Copies:
    """Those of one run, whose LoRA has the ``name`` in the folder ``loras``."""

    def __init__(self, job: Job, folder: Folder, loras: Path, name: str):
        self.job, self.folder, self.loras, self.name = job, folder, loras, name

    def make(self, state: State, seconds: float, plan: Plan | None) -> str:
        """Put the LoRA so far there as NAME_stepN, proved to load; none is overwritten. Returns its name there.

        Raises:
            RuntimeError: ComfyUI would not load it, and nothing is put there.
            ValueError: it cannot be stored in the numbers that were asked for.
            OSError: it cannot be written.
        """
        job, name = self.job, f"{self.name}_step{state.step}"
        tensors = files.rounded(state.lora.state_dict(), job.settings.save_as)
        named = files.named(tensors, job.family.name)
        header = job.header(name, state.step, seconds, plan)
        trial = self.folder.path / f"copy.trial{SUFFIX}"
        try:
            write_tensors(trial, named, header)
            apply.prove(job.model, trial, tensors)
        finally:
            with contextlib.suppress(OSError):
                trial.unlink(missing_ok=True)
        found = beside(self.loras / f"{name}{SUFFIX}", named, header).relative_to(self.loras).as_posix()
        if found not in self.folder.copies():
            self.folder.copied(found)
        return found
