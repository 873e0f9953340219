"""What edits of different methods do at the same side effect: curves over sizes, read at a KL. Needs no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lrc_tl.arguments.numbers_checked import numbers_checked


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class AtKl:
    """A curve over the sizes of edits, read where their KL elsewhere has a given value."""

    value: float
    weights: tuple[float, ...]
    """What the value of each size counts for; they add up to 1. Outcomes of single edits can be mixed alike."""
    reached: bool
    """Whether the KL is reached; if not, the value is that of the best size below."""

    def mixed(self, of_sizes: Sequence[float]) -> float:
        """The mean of something else of the same sizes, with the same weights."""
        return sum(weight * value for weight, value in zip(self.weights, of_sizes, strict=True) if weight)


@numbers_checked
def value_at_kl(values: Sequence[float], kls: Sequence[float], *, at: float) -> AtKl:
    """The value where the KL is `at`, linear over the KL between neighbouring sizes, the largest of all crossings.

    `values` and `kls` (nats) belong to sizes in increasing order. A curve that never reaches the KL gives its
    largest value; it lies below at every size.

    Raises:
        ValueError: no sizes, as many KLs as values are not given, a number that is not finite, `at` is not above
            0, or the KL of the smallest size lies above it already.
    """
    if not values or len(values) != len(kls):
        raise ValueError(f"{len(values)} values and {len(kls)} KLs were given; give one of each for every size")
    if not all(map(math.isfinite, (*values, *kls))):
        raise ValueError("a value or a KL is not finite; leave out what was not measured")
    if not (math.isfinite(at) and at > 0):
        raise ValueError(f"at is {at}; it must be above 0, in nats")
    if kls[0] > at:
        raise ValueError(
            f"the smallest size has a KL of {kls[0]:.3g} nats, above {at:g}; run smaller sizes too, so that the "
            "curve begins below"
        )
    crossings = [_crossing(values, kls, size, at) for size in range(len(values)) if _crosses(kls, size, at)]
    if crossings:
        return max(crossings, key=lambda crossing: crossing.value)
    best = max(range(len(values)), key=lambda size: values[size])
    weights = tuple(float(size == best) for size in range(len(values)))
    return AtKl(value=values[best], weights=weights, reached=False)


def _crosses(kls: Sequence[float], size: int, at: float) -> bool:
    """Whether the KL is `at` at this size, or between it and the next."""
    if kls[size] == at:
        return True
    return size + 1 < len(kls) and (kls[size] - at) * (kls[size + 1] - at) < 0


def _crossing(values: Sequence[float], kls: Sequence[float], size: int, at: float) -> AtKl:
    weights = [0.0] * len(values)
    share = 0.0 if kls[size] == at else (at - kls[size]) / (kls[size + 1] - kls[size])
    weights[size] = 1 - share
    if share:
        weights[size + 1] = share
    value = sum(weight * value for weight, value in zip(weights, values, strict=True))
    return AtKl(value=value, weights=tuple(weights), reached=True)
