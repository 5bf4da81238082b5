"""What the metrics of a training mean, in plain words."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    kind: str
    text: str


def verdict(told: dict[int, dict], learning_rate: float) -> Verdict:
    return Verdict("unknown", "")
