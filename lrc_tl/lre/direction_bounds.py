"""Bounds of how far low-rank directions are from exact ones, computed when somebody looks."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from torch import Tensor, stack

from lrc_tl.numerics.direction_error import direction_errors
from lrc_tl.numerics.sketching import BlockKrylov


class DirectionBounds(Mapping[str, float]):
    """By object, a bound of the angle (radians) to its exact direction (`lrc_tl.numerics.direction_error`).

    They take seconds on the processor where the model is wide: more than the fit itself on a GPU. So they are
    computed at the first look at one of them, from the sketch, which is kept until then.
    """

    def __init__(self, sketch: BlockKrylov, targets: Mapping[str, Tensor], *, rank: int, seed: int) -> None:
        self._names: Sequence[str] = tuple(targets)
        self._sketch, self._targets = sketch.without_products(), tuple(targets.values())
        self._rank, self._seed = rank, seed

    @cached_property
    def _bounds(self) -> dict[str, float]:
        bounds = direction_errors(self._sketch, stack(self._targets), rank=self._rank, seed=self._seed)
        return dict(zip(self._names, bounds.tolist(), strict=True))

    def __getitem__(self, name: str) -> float:
        return self._bounds[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return repr(self._bounds)
