"""Which pairs are kept from training, to see what a LoRA makes of those that it has never seen."""
import hashlib

FROM, SHARE, MOST = 12, 10, 8  # a tenth, from so many pairs on, and so many at most


def held_out(content: dict[str, str]) -> set[str]:
    """The names of those, from a hash of each sample's content by its name. By content, so that a pair that is added
    leaves the others where they are, but for one at most."""
    count = min(MOST, len(content) // SHARE) if len(content) >= FROM else 0
    return set(sorted(content, key=lambda name: hashlib.sha256(content[name].encode()).digest())[:count])
