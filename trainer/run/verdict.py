"""What the metrics of a training mean, in plain words, and what to do."""
import math
import statistics
from dataclasses import dataclass

NOTHING = 0.01  # relative change of the loss up to which nothing was learned
LEVEL = 0.02  # how far above the lowest held-out loss is still as good
WORSE = 0.05  # from where on it is worse
EXPLODED = 50  # times the median, a norm of a gradient that tells of a rate too high
SURE = 3  # standard errors
SHORT = 50  # steps, in which not much can be learned


@dataclass(frozen=True)
class Verdict:
    """``kind`` is one of "still learning", "at its best", "memorising", "unstable", "no effect"; ``text`` has the numbers."""

    kind: str
    text: str


def verdict(told: dict[int, dict], learning_rate: float, alike: float = 0.0) -> Verdict:
    """The verdict on a training by its metrics, of each step by its number; ``alike`` is how many of its pairs, from 0 to
    1, have a target that equals the input."""
    steps = [step for step, values in told.items() if "loss" in values]
    losses, norms = [told[step]["loss"] for step in steps], [told[step]["norm"] for step in steps]
    scores = {step: values["held_out"] for step, values in told.items() if "held_out" in values}
    if alike > 0.5:
        return Verdict("no effect", f"no effect: in {alike:.0%} of the pairs the target equals the input. Check the dataset's report.")
    if not losses:
        return Verdict("still learning", "")
    quarter = max(1, len(losses) // 4)
    first, before, last = losses[:quarter], losses[-2 * quarter : -quarter] or losses[:1], losses[-quarter:]
    lower = f"{learning_rate / 10:g}"
    if _surely_higher(last, first) or max(norms) > EXPLODED * statistics.median(norms):
        return Verdict("unstable", (
            f"unstable: the loss was {_mean(first):.4f} in the first quarter and {_mean(last):.4f} in the last, the gradient's norm "
            f"up to {max(norms):.3g} (usually {statistics.median(norms):.3g}). Lower the learning rate: try {lower}."
        ))  # fmt: skip
    if len(scores) < 2:
        return _by_training_loss(losses, first, before, last, learning_rate)
    start, end, best = scores[min(scores)], scores[max(scores)], min(scores, key=scores.get)
    as_good = [step for step, loss in scores.items() if step and loss <= scores[best] * (1 + LEVEL)]
    at_best = f"{scores[best]:.4f} at step {best}, " if best != max(scores) else ""
    numbers = f"held-out loss {start:.4f} before, {at_best}{end:.4f} at step {max(scores)}"
    if abs(scores[best] / start - 1) < NOTHING and abs(end / start - 1) < NOTHING:
        return _nothing(len(losses), numbers, learning_rate)
    if end > scores[best] * (1 + WORSE):
        if _mean(last) < _mean(first):
            return Verdict("memorising", (
                f"memorising: {numbers}, while the training loss fell to {_mean(last):.4f}. Stop at step {best}, or add pairs."
            ))  # fmt: skip
        return Verdict("unstable", f"unstable: {numbers}. Lower the learning rate: try {lower}.")
    if best == max(scores) and (len(scores) < 4 or as_good == [best] or _surely_higher(before, last)):
        return Verdict("still learning", f"still learning: {numbers}. More steps will help.")
    return Verdict("at its best", f"at its best: steps {as_good[0]} to {as_good[-1]} are equally good; {numbers}.")


def _by_training_loss(losses, first, before, last, learning_rate: float) -> Verdict:
    """Without held-out pairs, which alone show memorising."""
    numbers = f"training loss {_mean(first):.4f} in the first quarter, {_mean(last):.4f} in the last"
    if not _surely_higher(first, last) and abs(_mean(last) / _mean(first) - 1) < LEVEL:
        return _nothing(len(losses), numbers, learning_rate)
    if len(losses) < SHORT or _surely_higher(before, last):
        return Verdict("still learning", f"still learning: {numbers}. More steps may help; held-out pairs would tell.")
    return Verdict("at its best", f"at its best, as far as the training loss shows: {numbers}. Held-out pairs would tell more.")


def _nothing(steps: int, numbers: str, learning_rate: float) -> Verdict:
    if steps < SHORT:
        return Verdict("still learning", f"still learning: {numbers}. So few steps show little; more will help.")
    return Verdict("no effect", f"no effect: {numbers}. Raise the learning rate: try {learning_rate * 10:g}.")


def _mean(values: list[float]) -> float:
    return statistics.fmean(values)


def _surely_higher(a: list[float], b: list[float]) -> bool:
    """Whether the mean of ``a`` is above that of ``b`` by more than what losses of random samples and sigmas scatter."""
    if min(len(a), len(b)) < 2:
        return False
    error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
    return _mean(a) - _mean(b) > SURE * error
