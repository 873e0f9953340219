"""Forward passes over many token sequences of different lengths, without a padding error.

Rows are sorted by length and padded on the right with an attention mask of ones: in a causal model no token sees a
later one, so every real position is computed exactly as if its row were run alone, and positions stay absolute.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrc_tl.arguments.typechecking import checked
from lrc_tl.models.hooked_model import HookedModel, hook_layer
from lrc_tl.models.hooking import Kept, hooked_pass, keeping
from lrc_tl.numerics.out_of_memory import PieceSize
from lrc_tl.numerics.precision import HOST
from lrc_tl.passes.finite import LogitsCheck
from lrc_tl.passes.padding import whole_rows
from lrc_tl.relations.special_tokens import token_ids

MAX_TOKENS = 4096
"""Tokens in one batch (padding included) unless told otherwise; bounds the memory for activations."""
MAX_LOGIT_POSITIONS = 256
"""Positions in one batch that go through the unembedding."""
MAX_LOGITS = 2**26
"""Logits kept at a time (rows x positions x vocabulary) where they are many: 256 MiB in float32."""
_UNEMBEDDING_INPUT = "unembed.hook_in"

Hooks = list[tuple[str, Callable[..., Any]]]


def length_batches(lengths: Sequence[int], *, max_tokens: int = MAX_TOKENS) -> Iterator[list[int]]:
    """Row numbers in batches of similar length, each at most `max_tokens` after padding (or one row)."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if batch and (len(batch) + 1) * lengths[row] > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def whole_text_ids(model: HookedModel, text: str, *, n_more: int = 1) -> list[int]:
    """Token ids of a text that leave room for `n_more` tokens in the model's context.

    TransformerLens cuts longer texts without a word.

    Raises:
        ValueError: there is no such room, or the text begins with two beginning-of-sequence tokens.
    """
    ids = token_ids(model, text)
    n_ctx = getattr(model.cfg, "n_ctx", None)
    if n_ctx is not None and len(ids) + n_more > int(n_ctx):
        room = "" if n_more == 1 else f", or leaves no room for {n_more} tokens"
        raise ValueError(f"{text[:60]!r}... fills the model's context of {n_ctx} tokens{room}; shorten it")
    return ids


def right_padded(model: HookedModel, sequences: Sequence[Sequence[int]]) -> Tensor:
    """Token ids as one tensor, shape `batch pos`; rows are filled up on the right."""
    pad = getattr(model.tokenizer, "pad_token_id", None)
    shape = len(sequences), max(map(len, sequences))
    ids = torch.full(shape, 0 if pad is None else int(pad), device=HOST)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence, device=HOST)
    return ids.to(model.cfg.device)


def run(
    model: HookedModel,
    ids: Tensor,
    *,
    lengths: Sequence[int],
    fwd_hooks: Hooks,
    stop_at_layer: int | None = None,
) -> Any:
    """The model's output on right-padded texts of these `lengths` under these hooks, without gradients.

    It has no meaning where the pass stops early. Nothing real sees the padding, but steering that is on is told
    what is text.
    """
    with whole_rows(model, lengths):
        return hooked_pass(
            model, ids, fwd_hooks=fwd_hooks, stop_at_layer=stop_at_layer, attention_mask=torch.ones_like(ids)
        )


def kept_residuals(
    model: HookedModel,
    sequences: Sequence[Sequence[int]],
    hook_names: Iterable[str],
    *,
    read: Callable[[str, Tensor], Kept],
) -> dict[str, Kept]:
    """`read(hook name, residual)` for each hook point, from one pass over these token ids.

    The sequences are padded on the right, and `residual` has the shape `sequence pos d_model`. It is read inside
    the pass, so that nothing else of it stays in memory. The pass stops above the highest layer.
    """
    names = list(hook_names)
    kept: dict[str, Kept] = {}
    run(
        model,
        right_padded(model, sequences),
        lengths=list(map(len, sequences)),
        fwd_hooks=list(keeping(kept, names, read)),
        stop_at_layer=max(map(hook_layer, names)) + 1,
    )
    return kept


@checked
def picked_before_unembedding(index: Int[Tensor, "row wanted"]) -> tuple[str, Callable[..., Tensor]]:
    """A hook that lets only these positions of each row go through the unembedding.

    It stands at the unembedding's input: before it, Hugging Face's code (GPT-2's, GPT-J's) views the last layer's
    output in the shape that the batch had. The unembedding treats positions apart, and so does what follows it.
    """
    rows = torch.arange(len(index), device=index.device)[:, None]

    def pick(residual: Tensor, hook: Any) -> Tensor:
        return residual[rows.to(residual.device), index.to(residual.device)]

    return _UNEMBEDDING_INPUT, pick


def logits_at(
    model: HookedModel,
    sequences: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    *,
    hooks_for: Callable[[list[int]], Hooks] | None = None,
    max_tokens: int = MAX_TOKENS,
) -> Iterator[tuple[int, Float[Tensor, "pos d_vocab"]]]:
    """For each sequence, its number and the logits at its own positions, as batches finish (not in order).

    Only the positions asked for go through the unembedding. `hooks_for` makes the hooks for a batch
    from its row numbers; they run before the positions are picked.

    Raises:
        NotFiniteError: logits without a softmax, so no greedy token or log-probability that means anything.
    """
    check, pieces = LogitsCheck(model), PieceSize("prompts")
    wanted = max(map(len, positions), default=0)
    limit = max(1, MAX_LOGIT_POSITIONS // max(1, wanted))
    for batch in length_batches([len(sequence) for sequence in sequences], max_tokens=max_tokens):
        for start in range(0, len(batch), limit):
            rows = batch[start : start + limit]
            parts: list[Tensor] = []

            def compute(first: int, last: int, rows: list[int] = rows, parts: list[Tensor] = parts) -> None:
                some = rows[first:last]
                picked = [[*positions[r], *[0] * (wanted - len(positions[r]))] for r in some]
                index = torch.tensor(picked, device=model.cfg.device)
                batch_ids = [sequences[r] for r in some]
                fwd_hooks = [*(hooks_for(some) if hooks_for else []), picked_before_unembedding(index)]
                ids = right_padded(model, batch_ids)
                logits = run(model, ids, lengths=list(map(len, batch_ids)), fwd_hooks=fwd_hooks)
                check.require(logits, batch_ids)
                parts.append(logits)

            pieces.run(len(rows), len(rows), compute)
            for row, logits in zip(rows, (row for part in parts for row in part), strict=True):
                yield row, logits[: len(positions[row])]
