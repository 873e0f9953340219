"""How an LRE is fitted: exactly, or at a low rank with checked settings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lrc_tl.models.hooked_model import HookedModel

FitMethod = Literal["exact", "low_rank"]

_POWER_ITERATIONS = 3
_LEAST_WIDTH = 8


@dataclass(frozen=True, kw_only=True)
class LowRankSettings:
    """How a mean Jacobian is sketched, checked."""

    rank: int
    oversample: int
    power_iterations: int
    min_cosine: float | None
    seed: int

    @classmethod
    def checked(
        cls,
        model: HookedModel,
        *,
        rank: int | None,
        oversample: int | None,
        power_iterations: int | None,
        min_cosine: float | None,
        seed: int,
        oversample_by_rank: float = 1.25,
    ) -> "LowRankSettings":
        """The settings with their defaults: `oversample` a multiple of the rank, three power iterations.

        Raises:
            ValueError: no rank or one outside 1 to d_model, negative or too large `oversample`, negative
                `power_iterations`, or `min_cosine` outside 0 to 1.
        """
        d_model = int(model.cfg.d_model)
        if rank is None:
            raise ValueError('method="low_rank" needs rank: the largest rank that you will make concepts with')
        if not 1 <= rank <= d_model:
            raise ValueError(f"rank {rank} is not allowed; the model's width is {d_model}, so give 1 to {d_model}")
        if oversample is None:
            oversample = min(math.ceil(oversample_by_rank * rank), d_model - rank)
        if not 0 <= oversample <= d_model - rank:
            raise ValueError(
                f"oversample {oversample} is not allowed; with rank {rank} and width {d_model} give 0 to "
                f"{d_model - rank}"
            )
        if power_iterations is not None and power_iterations < 0:
            raise ValueError(f"power_iterations is {power_iterations}; give 0 or more")
        if min_cosine is not None and not 0 < min_cosine < 1:
            raise ValueError(f"min_cosine is {min_cosine}; give a number between 0 and 1, or None")
        return cls(
            rank=rank,
            oversample=oversample,
            power_iterations=_POWER_ITERATIONS if power_iterations is None else power_iterations,
            min_cosine=min_cosine,
            seed=seed,
        )

    @property
    def size(self) -> int:
        """Dimensions of the sketch."""
        return self.rank + self.oversample

    @property
    def least_size(self) -> int:
        """Dimensions before the first look at the errors."""
        return self.size if self.min_cosine is None else math.ceil(1.25 * self.rank)

    @property
    def width(self) -> int:
        """Dimensions of one round."""
        return max(math.ceil(self.size / (self.power_iterations + 1)), min(_LEAST_WIDTH, self.size))


def require_fit_method(method: str, *, name: str = "method") -> None:
    """Raise ValueError unless `method` is a way to fit an LRE; `name` is what the text calls it."""
    if method not in get_args(FitMethod):
        allowed = " or ".join(map(repr, get_args(FitMethod)))
        raise ValueError(f"{name} is {method!r}; allowed are {allowed}")


def low_rank_settings(
    model: HookedModel, method: str, options: Mapping[str, Any], *, seed: int, oversample_by_rank: float
) -> LowRankSettings | None:
    """The settings of a low-rank fit, None for an exact one.

    Raises:
        ValueError: an unknown method, options for an exact fit, or what `LowRankSettings.checked` refuses.
    """
    require_fit_method(method)
    if method == "exact":
        if given := [name for name, value in options.items() if value is not None]:
            raise ValueError(f'{", ".join(given)} given for an exact fit; add method="low_rank", or leave it out')
        return None
    return LowRankSettings.checked(
        model,
        rank=options["rank"],
        oversample=options["oversample"],
        power_iterations=options.get("power_iterations"),
        min_cosine=options.get("min_cosine"),
        seed=seed,
        oversample_by_rank=oversample_by_rank,
    )
