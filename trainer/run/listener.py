"""Who is told of a training."""
import logging
from pathlib import Path

from ..plan import Plan


class Listener:
    """One who hears nothing but warnings, which go to the log. What ``step`` raises ends the training."""

    def run(self, folder: Path) -> None:
        """Told first: the folder of the run, which may not be there yet."""

    def phase(self, text: str) -> None:
        """What is being done, before and after the steps."""

    def plan(self, plan: Plan) -> None:
        """How the memory is used from now on."""

    def step(self, step: int, loss: float) -> None:
        """A step has been taken, with its mean loss."""

    def score(self, step: int, loss: float) -> None:
        """The held-out loss after so many steps."""

    def preview(self, step: int, pictures: list[Path]) -> None:
        """What the LoRA makes of held-out pairs after so many steps."""

    def checkpoint(self, step: int) -> None:
        """The training has been saved after so many steps."""

    def verdict(self, text: str) -> None:
        """What the metrics so far mean, in words."""

    def copy(self, step: int, name: str) -> None:
        """The LoRA after so many steps has been put into the loras folder, under that name."""

    def should_stop(self) -> bool:
        """Asked after every step: whether the training is to end there, with the LoRA so far."""
        return False

    def warning(self, text: str) -> None:
        logging.warning(f"PairLoRA: {text}")
