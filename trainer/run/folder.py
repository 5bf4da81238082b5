"""The folder of a run: what it is made from, its metrics, who is training it, and whether it is to stop."""
import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

from ..host import compat
from .checkpoints import Checkpoints, Place
from .places import whole

LAYOUT = 1
ASKED = ("stop", "preview", "copy")  # files by which others ask for it
PAUSE = 1.0  # seconds between two looks at a file that others may write
WRITTEN = 1.0  # seconds after which metrics are handed to the system


class Folder:
    """A run on disk; see the room's docstring for its layout."""

    def __init__(self, path: Path):
        self.path, self.checkpoints = path, Checkpoints(path / "checkpoints")
        self.previews, self._looked = path / "previews", 0.0

    def describe(self, words: dict) -> str | None:
        """Note what the run is made from, and the version of ComfyUI; returns what to say where that is another one than
        before.

        Raises:
            ValueError: a newer version of the pack has made it.
        """
        file, known = self.path / "run.json", {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(file.read_text(encoding="utf-8"))
        if known.get("layout", 0) > LAYOUT:
            raise ValueError(f"{self.path} is of a newer PairLoRA. Update PairLoRA, or move that folder away to train anew.")
        versions = known.get("comfyui", [])
        note = {"layout": LAYOUT, **words, "comfyui": [v for v in versions if v != compat.VERSION] + [compat.VERSION]}
        if note != known:
            with whole(file) as unfinished:
                unfinished.write_text(json.dumps(note, indent=1), encoding="utf-8")
        if versions and versions[-1] != compat.VERSION:
            return f"This training was begun with ComfyUI {versions[-1]} and goes on with {compat.VERSION}."
        return None

    @contextlib.contextmanager
    def locked(self, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Nobody else trains this run while this is open; until nobody does, ``on_wait(text)`` is called every second,
        and ends the waiting by raising."""
        lock, holder = filelock.FileLock(self.path / "lock"), self.path / "holder.json"
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except filelock.Timeout:
                who = {"process": "unknown", "host": "unknown"}
                with contextlib.suppress(OSError, ValueError):
                    who |= json.loads(holder.read_text(encoding="utf-8"))
                on_wait(f"waiting: process {who['process']} on {who['host']} trains the same")
                time.sleep(PAUSE)
        try:
            with whole(holder) as unfinished:
                unfinished.write_text(json.dumps({"process": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")
            yield
        finally:
            self.done(*ASKED, holder.name)
            lock.release()

    def ask(self, what: str) -> None:
        """Ask whoever trains this for one of ``ASKED``."""
        (self.path / what).touch()

    def asked(self) -> set[str]:
        """What of ``ASKED`` someone has asked for; looked up once a second at most."""
        if (now := time.monotonic()) - self._looked < PAUSE:
            return set()
        self._looked = now
        return {what for what in ASKED if (self.path / what).exists()}

    def done(self, *what: str) -> None:
        """What was asked for is done."""
        for name in what:
            with contextlib.suppress(OSError):
                (self.path / name).unlink(missing_ok=True)

    def copies(self) -> list[str]:
        """The names of the copies in the loras folder that were asked for."""
        with contextlib.suppress(OSError, ValueError):
            if isinstance(found := json.loads((self.path / "copies.json").read_text(encoding="utf-8")), list):
                return found
        return []

    def copied(self, name: str) -> None:
        with whole(self.path / "copies.json") as unfinished:
            unfinished.write_text(json.dumps([*self.copies(), name]), encoding="utf-8")


class Metrics:
    """A file of one JSON object a line, that is only ever appended to, as a context."""

    def __init__(self, folder: Path):
        self.file, self._written = folder / "metrics.jsonl", time.monotonic()

    def __enter__(self) -> "Metrics":
        self._opened = open(self.file, "a+", encoding="utf-8", errors="replace")
        if self._opened.tell():  # whoever wrote it last may have been killed in the middle of a line
            self._opened.write("\n")
        return self

    def __exit__(self, *_) -> None:
        self._opened.close()

    def write(self, **values) -> None:
        self._opened.write(json.dumps(values) + "\n")
        if (now := time.monotonic()) - self._written >= WRITTEN:
            self.flush()
            self._written = now

    def flush(self) -> None:
        self._opened.flush()

    def read(self, steps: int, cooling: int, of: str) -> dict[int, dict]:
        """All that is known of each step of a training of so many, the last ``cooling`` cooled down, by its number; of
        scores those ``of`` the present pairs."""
        found: dict[int, dict] = {}
        self._opened.seek(0)  # what is written goes to the end all the same
        for line in self._opened:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):  # a torn or damaged line
                values = json.loads(line)
                place = Place(int(values["step"]), values.get("length", 0))
                if place.leads_to(steps, cooling) and values.get("of", of) == of:
                    found.setdefault(values["step"], {}).update(values)
        return dict(sorted(found.items()))
