"""Work in pieces that become smaller when memory runs out, on any device, and say so."""

from collections.abc import Callable

import torch

from lrc_tl.errors import OutOfMemoryError
from lrc_tl.markup.caller_warnings import warn_caller

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
"""In the messages of torch's RuntimeErrors: of a CPU on Linux, on Windows, of Apple's GPUs, of cuBLAS."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left; torch has a class of its own for GPUs alone."""
    if isinstance(error, OutOfMemoryError):  # ours, about the smallest piece
        return False
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


class PieceSize:
    """How many items run at once. All work that shares this object remembers what was too much."""

    def __init__(self, what: str) -> None:
        """`what` the items are, for texts: "rows of a Jacobian"."""
        self._what = what
        self._most: int | None = None

    def run(self, n_items: int, n_at_once: int, work: Callable[[int, int], None]) -> None:
        """Call `work(start, stop)` for all items in pieces of `n_at_once`, or of what fitted before.

        A piece that memory ran out for is run again as two, with a warning; later pieces are as small. What
        `work` had begun must not count.

        Raises:
            OutOfMemoryError: there is no memory for one item.
        """
        start = 0
        while start < n_items:
            size = min(n_at_once, n_items - start, self._most or n_at_once)
            if self._fits(start, start + size, work):
                start += size
                continue
            # Outside of the handler, which held what the failed piece had taken.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._most = size // 2
            warn_caller(
                f"memory ran out with {size} {self._what} at once; they are run again with {self._most}, and so "
                "is what follows"
            )

    def _fits(self, start: int, stop: int, work: Callable[[int, int], None]) -> bool:
        try:
            work(start, stop)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if stop - start == 1:
                details = str(error).partition("\n")[0][:100] or type(error).__name__
                raise OutOfMemoryError(
                    f"memory ran out with a single one of the {self._what}; give shorter prompts, a model in "
                    f"bfloat16, or a larger device ({details})"
                ) from error
            return False
        return True
