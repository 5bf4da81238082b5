"""Who is told of a training, and what lies between its steps."""
import logging

from .plan import Plan


class Watch:
    """A training that nobody watches. What a method raises ends the training."""

    def plan(self, plan: Plan) -> None:
        """How the memory is used from now on."""

    def warning(self, text: str) -> None:
        logging.warning(f"PairLoRA: {text}")

    def stepped(self, state, loss: float, norm: float, rate: float) -> bool:
        """After every step, with its mean loss, the norm of its gradient before clipping and its learning rate; returns
        whether ``between`` is wanted before the next one."""
        return False

    def between(self, state) -> bool:
        """Between two steps, the base model loaded and computing with the LoRA, without what training needs around it:
        before the first step, when ``stepped`` has asked for it, and after the last. Returns whether to go on."""
        return True
