"""How fast matrix products are on a device: what predicted operations are divided by."""

import time

import torch

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.numerics.precision import HOST

_ROWS = 512
_LEAST_SECONDS = 0.05


@numbers_checked
def product_rate(
    width: int, *, dtype: torch.dtype = torch.float32, device: str | torch.device = HOST, seconds: float = 0.2
) -> float:
    """Floating-point operations a second in products of 512 rows with a square matrix of this width.

    With all threads that torch has; the best of the repetitions that fit into `seconds`, which are on the clock.

    Raises:
        ValueError: a width below 1, or seconds that are not above 0.
    """
    if width < 1:
        raise ValueError(f"width is {width}; give 1 or more")
    if not seconds > 0:
        raise ValueError(f"seconds is {seconds}; give a number above 0")
    place = torch.device(device)
    left, right = (torch.ones(rows, width, dtype=dtype, device=place) for rows in (_ROWS, width))
    left @ right  # the first product loads libraries
    n_at_once, best, started = 1, 0.0, time.perf_counter()
    while best == 0 or time.perf_counter() - started < seconds:
        _wait_for(place)
        before = time.perf_counter()
        for _ in range(n_at_once):
            left @ right
        _wait_for(place)
        taken = time.perf_counter() - before
        if taken < min(_LEAST_SECONDS, seconds):  # too short for the clock
            n_at_once *= 2
            continue
        best = max(best, n_at_once * 2 * _ROWS * width**2 / taken)
    return best


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
