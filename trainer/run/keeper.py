"""What a run does between the steps of its training."""
import contextlib
import math
import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from ..host import compat, memory
from ..host.encode import Encoded
from ..plan import Plan
from ..scores import held_out_loss, interval
from ..state import State
from ..watch import Watch
from .checkpoints import Best, Place
from .copies import Copies
from .folder import Folder, Metrics
from .job import Job
from .listener import Listener
from .previews import Previews, when
from .verdict import verdict

COST = 50  # times as long as the last checkpoint took, the next one waits: under 2 % of the time
SPIKE = 10  # times the median of the losses before it
SEEN = 100  # of them
TOLD = 10.0  # seconds at least between two verdicts while it trains

NO_PREVIEW = "There are no held-out pairs to show: connect some to held_out, with previews above 0 in Training Settings."


class Keeper(Watch):
    """Writes metrics, scores and checkpoints, tells the listener, and looks whether the training is to stop."""

    def __init__(
        self, job: Job, folder: Folder, metrics: Metrics, held_out: Sequence[Encoded], previews: Previews | None,
        copies: Copies, listener: Listener, best: Best | None, before: float, same: float,
    ):  # fmt: skip
        """``best`` is what an earlier try has found, which took ``before`` seconds; ``same`` is how many of the samples are
        ``alike``."""
        self.previews, self.shown, self.copies = previews, when(job) if previews else set(), copies
        self.wanted: set[str] = set()  # that someone has asked for
        self.job, self.folder, self.metrics, self.listener = job, folder, metrics, listener
        self.held_out, self.best, self.used = held_out, best, None
        self.last = None  # held-out loss at the last step, and of the average there
        self.average = None
        self.every = interval(len(held_out), job.settings.samples) if held_out else math.inf
        self.state: State | None = None
        self.kept = -1  # step of the newest checkpoint
        self.kept_at, self.cost = time.monotonic(), 0.0
        self.losses: deque[float] = deque(maxlen=SEEN)
        self.same, self.judged_at, self.judging = same, time.monotonic(), 0.0
        self.begun, self.stopping = time.monotonic() - before, False
        self.spent = dict.fromkeys(("scores", "previews", "checkpoints"), 0.0)  # seconds of them

    @property
    def seconds(self) -> float:
        """That the training has taken, earlier tries included."""
        return time.monotonic() - self.begun

    # what the loop calls

    def plan(self, plan: Plan) -> None:
        self.used = plan
        self.listener.plan(plan)

    def warning(self, text: str) -> None:
        self.listener.warning(text)

    def stepped(self, state: State, loss: float, norm: float, rate: float) -> bool:
        usual = statistics.median(self.losses) if len(self.losses) == SEEN else math.inf
        values = {"loss": loss, "norm": norm, "rate": rate, "seconds": round(self.seconds, 3)}
        self._note(state.step, **values, **({"spike": True} if loss > SPIKE * usual else {}))
        self.losses.append(loss)
        self.listener.step(state.step, loss)
        memory.check_interrupted()
        asked = self.folder.asked()
        self.stopping, self.wanted = self.listener.should_stop() or "stop" in asked, asked - {"stop"}
        due = self._score_is_due(state.step) or state.step in self.shown or self._checkpoint_is_due(state.step)
        return self.stopping or bool(self.wanted) or due

    def between(self, state: State) -> bool:
        first, self.state = self.state is None, state
        if first:
            self.kept = state.step or -1
        ends = self.stopping or state.step == self.job.steps
        if self.held_out and (self._score_is_due(state.step) or ends):
            with self._timed("scores"):
                self._score(state, ends)
        if "copy" in self.wanted:
            self._copy(state)
        if "preview" in self.wanted and not self.previews:
            self.warning(NO_PREVIEW)
        if self.previews and (state.step in self.shown or ends or "preview" in self.wanted):
            with self._timed("previews"):
                self._show(state.step)
        self.folder.done(*self.wanted)
        self.wanted = set()
        if not first and not ends and self._checkpoint_is_due(state.step):  # at the end the LoRA itself is saved first
            self.keep()
        if not first and not ends:  # the report has the last
            self._judge()
        return not self.stopping

    # what it does

    def keep(self) -> None:
        """Write a checkpoint of where the training stands, unless there is one.

        Raises:
            OSError: it cannot be written; with what to do.
        """
        state = self.state
        if state is None or not state.is_whole or state.step in (0, self.kept):
            return
        self.metrics.flush()
        saved = state.saved()
        saved = replace(saved, numbers={**saved.numbers, "seconds": self.seconds, "scored_on": self.job.scored_on})
        begun = time.monotonic()
        try:
            with self._timed("checkpoints"):
                self.folder.checkpoints.write(self._place(state.step), saved, self.best)
        except OSError as error:
            raise OSError(
                f"{error} The training ended at step {state.step}; what is kept of it goes up to step {max(0, self.kept)}. "
                "Make room, and queue the same again to go on from there."
            ) from error
        self.folder.checkpoints.prune(self.job.steps, self.job.cooling)
        self.kept, self.kept_at = state.step, time.monotonic()
        self.cost = self.kept_at - begun
        self.listener.checkpoint(state.step)

    def best_step(self, chosen: str) -> int:
        """The step that one of the ``candidates`` is of."""
        return self.best.step if self.best and chosen == f"step {self.best.step}" else self.state.step

    def candidates(self) -> dict[str, tuple[float, dict]]:
        """The LoRAs that may be handed on with their held-out losses, by what they are called: the last step's first."""
        state = self.state
        found = {"the last step": (self.last, state.lora.state_dict())}
        if self.best and self.best.step != state.step:
            found[f"step {self.best.step}"] = self.best.loss, self.folder.checkpoints.read_best(self.best)
        with state.average.in_place():
            found["the average"] = self.average, state.lora.state_dict()
        return found

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.spent[name] += time.monotonic() - begun

    def _score(self, state: State, ends: bool) -> None:
        loss = held_out_loss(self.job.model, self.held_out, self.job.settings.timesteps)
        self._note(state.step, of=self.job.scored_on, held_out=loss)
        self.listener.score(state.step, loss)
        if self._score_is_due(state.step) and state.step and not (self.best and self.best.loss <= loss):
            self.best = self.folder.checkpoints.write_best(self._place(state.step), loss, state.lora.state_dict())
        if ends:
            self.last = loss
            with state.average.in_place():
                self.average = held_out_loss(self.job.model, self.held_out, self.job.settings.timesteps)
            self._note(state.step, of=self.job.scored_on, average=self.average)

    def _show(self, step: int) -> None:
        """Pictures of what the LoRA makes of held-out pairs. None is worth a training: without memory for one it is left
        out, and after any other error all that follow."""
        self.shown.discard(step)
        try:
            files, likeness = self.previews.make(step)
        except Exception as error:
            if memory.is_interrupt(error):
                raise
            if not compat.is_out_of_memory(error):
                self.previews = None
            self.warning(f"The preview at step {step} was left out: {str(error) or type(error).__name__}")
            files = []
        if not files:  # outside of the except, whose error holds what it has made
            memory.release(self.job.model, self.job.vae.patcher)
            memory.load(self.job.model, 0)
            return
        self._note(step, of=self.job.scored_on, preview=asdict(likeness), **({} if step else {"copied": asdict(self.previews.copied())}))
        self.listener.preview(step, files)

    def _copy(self, state: State) -> None:
        """None is worth a training: where it fails, that is told."""
        try:
            name = self.copies.make(state, self.seconds, self.used)
        except Exception as error:
            if memory.is_interrupt(error):
                raise
            self.warning(f"The LoRA of step {state.step} was not copied: {str(error) or type(error).__name__}")
            return
        self.listener.copy(state.step, name)

    def _judge(self) -> None:
        """Tell the verdict on what there is. It takes under 2 % of the time."""
        if (begun := time.monotonic()) - self.judged_at < max(TOLD, COST * self.judging):
            return
        told = self.metrics.read(self.job.steps, self.job.cooling, self.job.scored_on)
        self.listener.verdict(verdict(told, self.job.learning_rate, self.same).text)
        self.judged_at = time.monotonic()
        self.judging = self.judged_at - begun

    def _score_is_due(self, step: int) -> bool:
        return bool(self.held_out) and step % self.every == 0

    def _checkpoint_is_due(self, step: int) -> bool:
        job, waited = self.job, time.monotonic() - self.kept_at
        if step == self.kept or not step:
            return False
        if job.cooling and step == job.steps - job.cooling:  # from here more steps go on
            return True
        settings = job.settings
        due = step % settings.checkpoint_steps == 0 or waited >= 60 * settings.checkpoint_minutes
        return due and waited >= COST * self.cost

    def _note(self, step: int, **values) -> None:
        place = self._place(step)
        self.metrics.write(step=step, **({"length": place.length} if place.length else {}), **values)

    def _place(self, step: int) -> Place:
        cooled = self.job.cooling and step > self.job.steps - self.job.cooling
        return Place(step, self.job.steps if cooled else 0)
