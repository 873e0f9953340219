"""Pieces that become smaller when memory runs out: all work is done once, and what became smaller is said."""

import pytest
import torch

from lrc_tl.errors import OutOfMemoryError
from lrc_tl.numerics.out_of_memory import PieceSize, is_out_of_memory


def fits_at_most(most, done, error):
    def work(start, stop):
        if stop - start > most:
            raise error
        done.extend(range(start, stop))

    return work


def real_error():
    """What torch raises on this machine for a tensor that no memory holds."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    return caught.value


ERRORS = {
    "of a CPU": real_error,
    "of a GPU": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "of cuBLAS": lambda: RuntimeError(
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    ),
    "of Apple's GPU": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    "of Windows": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    "of Python": MemoryError,
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("most", [1, 3, 7])
def test_every_item_is_worked_on_once_and_in_order_however_little_memory_there_is(kind, most):
    done, sizes = [], PieceSize("rows")
    with pytest.warns(UserWarning, match=r"memory ran out with \d+ rows at once; they are run again with \d+"):
        sizes.run(20, 16, fits_at_most(most, done, ERRORS[kind]()))
    assert done == list(range(20))


def test_what_was_too_much_is_remembered_and_warned_about_once(recwarn):
    sizes, tried = PieceSize("rows"), []

    def work(start, stop):
        tried.append(stop - start)
        if stop - start > 4:
            raise MemoryError

    for _ in range(3):
        sizes.run(8, 8, work)
    assert tried == [8, 4, 4, 4, 4, 4, 4]
    assert len(recwarn) == 1
    assert recwarn[0].filename == __file__


def test_one_item_that_does_not_fit_is_refused_with_what_to_do():
    with (
        pytest.warns(UserWarning, match="run again with 1"),
        pytest.raises(
            OutOfMemoryError, match="a single one of the rows; give shorter prompts, a model in bfloat16"
        ),
    ):
        PieceSize("rows").run(2, 2, fits_at_most(0, [], ERRORS["of a GPU"]()))
    assert not is_out_of_memory(OutOfMemoryError("memory ran out"))


def test_other_errors_stay_as_they_are(recwarn):
    for error in (
        RuntimeError("shapes do not fit"),
        ValueError("out of memory, says a prompt"),
        KeyboardInterrupt(),
    ):
        with pytest.raises(type(error)):
            PieceSize("rows").run(4, 4, fits_at_most(1, [], error))
    assert not recwarn.list
