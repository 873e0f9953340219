"""Numbers that are NaN or infinite: found where they appear, and named by the text that they belong to.

Nothing may count them: a comparison with NaN is False, so an edit that broke the model would look like one that
failed, and the largest of NaN logits is the first token of the vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from jaxtyping import Bool, Float
from torch import Tensor

from lrc_tl.arguments.typechecking import checked
from lrc_tl.errors import NotFiniteError
from lrc_tl.markup.caller_warnings import warn_caller
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.relations.prompts import Prompt

_Read = TypeVar("_Read")
_MOST_CHARACTERS = 60
"""Of the end of a text that an error shows."""
_ADVICE = "load the model in float32 and check its weights"


def gives_probabilities(logits: Float[Tensor, "*batch d_vocab"]) -> Bool[Tensor, "*batch"]:
    """Where the logits have a softmax: none is NaN or +inf, and not all are -inf.

    Some may be -inf: so a model forbids tokens.
    """
    finite: Tensor = logits.amax(-1).isfinite()
    return finite


class LogitsCheck:
    """Refuses logits without a softmax, row by row, and counts the rows that were looked at."""

    def __init__(self, model: HookedModel) -> None:
        self._model = model
        self._n_rows = 0

    def require(
        self,
        logits: Float[Tensor, "row pos d_vocab"],
        sequences: Sequence[Sequence[int]],
        shifts: Float[Tensor, "row d_model"] | None = None,
        overflowed: Bool[Tensor, " row"] | None = None,
    ) -> None:
        """Go on where all logits of a batch have a softmax; `sequences` are the token ids of its rows.

        Args:
            shifts: the edits that the rows ran under, for the text of the error.
            overflowed: rows in which an edit left a residual without a finite norm. The model's norm layers may
                turn that into zeros, and so into logits that look well.

        Raises:
            NotFiniteError: some have none; with the text of the first such row, and how many there are.
        """
        self._n_rows += len(logits)
        good = gives_probabilities(logits).all(1)
        if overflowed is not None:
            good &= ~overflowed
        if bool(good.all()):
            return
        rows = (~good).nonzero()[:, 0].tolist()
        text = self._model.tokenizer.decode(list(sequences[rows[0]]))
        end = text if len(text) <= _MOST_CHARACTERS else f"...{text[-_MOST_CHARACTERS:]}"
        advice, under = _ADVICE, ""
        if shifts is not None and bool(shifts[rows[0]].any()):
            shift = shifts[rows[0]].double()
            largest = shift.abs().max()  # its square may be infinite
            under = f" under an edit of size {float(largest * (shift / largest).norm()):.4g}"
            advice = f"give a smaller edit (beta or strength), or {_ADVICE}"
        raise NotFiniteError(
            f"the residuals or logits of {len(rows)} of {self._n_rows} runs are not finite, the first behind "
            f"{end!r}{under}; {advice}"
        )


@checked
def require_finite_residuals(residuals: Float[Tensor, "row d_model"], texts: Sequence[str], *, layer: int) -> None:
    """Go on where all residuals are finite; `texts` are those of the rows.

    Raises:
        NotFiniteError: some are not; with the first such text, and how many there are.
    """
    good = residuals.isfinite().all(1)
    if bool(good.all()):
        return
    rows = (~good).nonzero()[:, 0].tolist()
    raise NotFiniteError(
        f"the residual stream of {texts[rows[0]]!r} at layer {layer} is not finite ({len(rows)} of {len(texts)} "
        f"texts); {_ADVICE}",
        rows=rows,
    )


def finite_prompts(
    prompts: Sequence[Prompt], read: Callable[[Sequence[Prompt]], _Read]
) -> tuple[tuple[Prompt, ...], _Read]:
    """The prompts whose residuals are finite, and what `read` gives for them; a warning says what is left out.

    Raises:
        NotFiniteError: those of no prompt are.
    """
    rest = tuple(prompts)
    reasons: list[str] = []
    while True:
        try:
            result = read(rest)
        except NotFiniteError as error:
            broken = set(error.rows)
            if not broken or len(broken) == len(rest):
                raise
            reasons.append(str(error))
            rest = tuple(prompt for row, prompt in enumerate(rest) if row not in broken)
        else:
            break
    if reasons:
        objects = dict.fromkeys(prompt.object for prompt in rest)
        lost = list(dict.fromkeys(prompt.object for prompt in prompts if prompt.object not in objects))
        without = f", and with them the objects {', '.join(map(repr, lost))}" if lost else ""
        warn_caller(f"{len(prompts) - len(rest)} of {len(prompts)} prompts are left out{without}: {reasons[0]}")
    return rest, result
