"""What a fit of LREs takes: floating-point operations and memory, known before anything runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.errors import OutOfMemoryError
from lrc_tl.lre.fit_settings import FitDtype, LowRank, Sketch, Solver, require_fit_dtype, sketch_for
from lrc_tl.lre.jacobian import free_bytes, layer_pairs, mlp_jacobian_bytes, rows_at_once
from lrc_tl.lre.low_rank_fit import GRAPHS_KEPT, GRID_GRAPHS_KEPT, exact_is_cheaper, grid_width
from lrc_tl.lre.wide_weights import widened_bytes
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.sizes import ModelSizes, model_sizes
from lrc_tl.numerics.free_memory import host_free_bytes
from lrc_tl.numerics.precision import HOST
from lrc_tl.relations.prompts import Prompt, TokenizedPrompt, tokenize_prompt

_WIDE = torch.float32.itemsize
_SMALL = 2**24
"""Bytes for what is not counted one by one: tokens, positions, Python's own."""


@dataclass(frozen=True, kw_only=True)
class FitCost:
    """What a fit takes, beside the model."""

    operations: int
    """In matrix products; a multiplication and an addition are two."""
    reading: int = 0
    """What reading the weights takes in each pass, as the operations that take as long."""
    n_bytes: int
    """At the peak: the LREs, the Jacobians or the sketch under way, and what is kept of the passes."""

    @numbers_checked
    def seconds(self, rate: float) -> float:
        """At so many operations a second, as `lrc.numerics.product_rate` measures them."""
        return (self.operations + self.reading) / rate

    def __str__(self) -> str:
        return f"{self.operations / 1e12:,.2f} x 10^12 operations, {in_mebibytes(self.n_bytes)} beside the model"


@dataclass(frozen=True, kw_only=True)
class TextLength:
    """Of a prompt with its object."""

    n_tokens: int
    n_after: int
    """From the last subject token on, which itself counts."""

    @classmethod
    def of(cls, tokens: TokenizedPrompt) -> "TextLength":
        """Of a prompt that tokens were made of."""
        n_tokens = len(tokens.input_ids)
        return cls(n_tokens=n_tokens, n_after=n_tokens - tokens.subject_position)


@numbers_checked
def fit_cost(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    subject_layers: Sequence[int],
    object_layers: Sequence[int],
    solver: Solver = "exact",
    fit_dtype: FitDtype = "model",
    memory_limit: int | None = None,
) -> FitCost:
    """What `fit_layer_grid` with these options takes, or `LinearRelationalEmbedding.fit` for one layer each.

    No model runs. Fits refuse what does not fit into free memory by the same number. On a GPU it is that with one
    row of a Jacobian at a time; more are computed together where there is room. Of a low-rank fit with a
    `min_cosine` the first rounds are counted; how many follow is not known before.

    Raises:
        ValueError: as `fit_layer_grid`.
    """
    prompts = as_tuple(prompts, "prompts", Prompt)
    if not prompts:
        raise ValueError("no prompts; give at least one")
    require_fit_dtype(fit_dtype)
    pairs = layer_pairs(model, subject_layers, object_layers)
    sketch = sketch_for(solver, int(model.cfg.d_model), grid=len(pairs) > 1 and isinstance(solver, LowRank))
    if sketch is not None and exact_is_cheaper(int(model.cfg.d_model), pairs, sketch):
        sketch = None
    tokenized = [tokenize_prompt(model, prompt) for prompt in prompts]
    return cost_on(model, tokenized, pairs, sketch, fit_dtype=fit_dtype, memory_limit=memory_limit)


def cost_on(
    model: HookedModel,
    tokenized: Sequence[TokenizedPrompt],
    pairs: Sequence[tuple[int, int]],
    sketch: Sketch | None,
    *,
    fit_dtype: FitDtype,
    memory_limit: int | None,
) -> FitCost:
    """The cost of these pairs on a model, by a sketch or exactly."""
    longest = max(tokenized, key=lambda tokens: len(tokens.input_ids) - tokens.subject_position)
    kept = 0 if sketch is not None else mlp_jacobian_bytes(model, longest, pairs, memory_limit)
    n_rows = rows_at_once(model, longest, memory_limit, kept=kept)
    # Without a limit a GPU takes as many rows as fit beside all else, which is one at least.
    fills_memory = memory_limit is None and torch.device(model.cfg.device).type != HOST.type
    cost = pairs_cost(
        model_sizes(model),
        [TextLength.of(tokens) for tokens in tokenized],
        pairs,
        sketch,
        n_rows=n_rows,
        n_rows_held=1 if fills_memory else n_rows,
        with_mlp_jacobians=kept > 0,
    )
    if fit_dtype == "model":
        return cost
    more = widened_bytes(model, highest=max(object_ for _, object_ in pairs))
    return replace(cost, n_bytes=cost.n_bytes + more)


def require_memory(model: HookedModel, cost: FitCost, *, n_pairs: int) -> None:
    """Go on where the fit's memory is free on the model's device, as far as the device says.

    Raises:
        OutOfMemoryError: it is not; the text says how much is missing.
    """
    free = bytes_left(torch.device(model.cfg.device))
    if free is None or cost.n_bytes <= free:
        return
    what = "this pair of layers" if n_pairs == 1 else f"these {n_pairs} pairs of layers"
    raise OutOfMemoryError(
        f"the fit of {what} takes about {in_mebibytes(cost.n_bytes)} beside the model, and "
        f"{in_mebibytes(free)} are free; give fewer pairs or LowRank(rank=...), or a memory_limit for the reverse "
        "pass"
    )


def bytes_left(device: torch.device) -> int | None:
    """What can still be had on a device; None where it does not say."""
    return host_free_bytes() if device.type == HOST.type else free_bytes(device)


def pairs_cost(
    sizes: ModelSizes,
    texts: Sequence[TextLength],
    pairs: Sequence[tuple[int, int]],
    sketch: Sketch | None,
    *,
    n_rows: int,
    n_rows_held: int,
    with_mlp_jacobians: bool,
) -> FitCost:
    """The cost on a model of these sizes, with `n_rows` rows of a Jacobian in one reverse pass.

    Memory is counted with `n_rows_held` rows.
    """
    lowest, highest = min(subject for subject, _ in pairs), max(object_ for _, object_ in pairs)
    longest = max(text.n_after for text in texts)
    square = sizes.d_model**2
    # What autograd keeps of a layer at a position: inputs of products and of whatever is not linear.
    graph = sizes.itemsize * longest * (highest - lowest) * (4 * sizes.d_mlp + 8 * sizes.d_model)
    at_once = _row_bytes(sizes, n_after=longest)
    held = len(pairs) * square * _WIDE
    if sketch is None:
        n_operations = sum(_exact_operations(sizes, text, pairs, with_mlp_jacobians) for text in texts)
        n_passes = math.ceil(sizes.d_model / n_rows) * len({object_ for _, object_ in pairs})
        together = max(sum(1 for _, other in pairs if other == object_) for _, object_ in pairs)
        jacobians = together * square * _WIDE if len(texts) > 1 else 0  # those of the first prompt become the sums
        kept = sizes.itemsize * (highest - lowest) * longest * square if with_mlp_jacobians else 0
        n_bytes = held + jacobians + kept + graph + min(n_rows_held, sizes.d_model) * at_once
    else:
        n_operations = sum(_sketch_operations(sizes, text, pairs, sketch) for text in texts)
        n_passes = 1 + 2 * math.ceil(sketch.least_size / sketch.width)  # one makes the graph
        if len(pairs) > 1:
            n_passes = 1 + len({subject for subject, _ in pairs}) + len({object_ for _, object_ in pairs})
        n_graphs = min(len(texts), GRID_GRAPHS_KEPT if len(pairs) > 1 else GRAPHS_KEPT)
        width = sketch.width if len(pairs) == 1 else sketch.size
        vectors = 8 * len(pairs) * sizes.d_model * sketch.size * _WIDE
        # A product from the left goes through the reverse pass of the reverse pass.
        n_bytes = held + square * _WIDE + vectors + 2 * n_graphs * graph + 2 * min(n_rows_held, width) * at_once
    forward = sum(sizes.pass_operations(n_tokens=text.n_tokens, n_layers=highest + 1) for text in texts)
    # Forward in two passes, before the subject and after it; and the whole model once, for its fingerprint.
    reading = len(texts) * sizes.reading_operations(n_passes=n_passes, n_layers=highest - lowest)
    reading += len(texts) * sizes.reading_operations(n_passes=2, n_layers=highest + 1)
    reading += sizes.reading_operations(n_passes=1)
    return FitCost(operations=n_operations + forward, reading=reading, n_bytes=n_bytes + _SMALL)


def dual_cost(sizes: ModelSizes) -> FitCost:
    """What a dual (`lrc_tl.lre.dual`) and the dual of class means take beside the LREs, in float64.

    `W Sigma W^T`, and the Cholesky decompositions of it and of a covariance; a float64 product counts as two.
    """
    square = sizes.d_model**2
    return FitCost(operations=6 * square * sizes.d_model, n_bytes=5 * square * torch.float64.itemsize)


def decomposition_cost(sizes: ModelSizes) -> FitCost:
    """What the singular value decomposition of a whole weight takes, which is slower than products."""
    square = sizes.d_model**2
    return FitCost(operations=60 * square * sizes.d_model, n_bytes=6 * square * _WIDE)


def _row_bytes(sizes: ModelSizes, *, n_after: int) -> int:
    """What a row takes on its way through an MLP, in float32 in part whatever the model's dtype; as measured.

    `lrc_tl.lre.jacobian.row_bytes` bounds it from above, for a `memory_limit`.
    """
    return _WIDE * n_after * (5 * sizes.d_mlp // 2 + 4 * sizes.d_model)


def _exact_operations(
    sizes: ModelSizes, text: TextLength, pairs: Sequence[tuple[int, int]], with_mlp_jacobians: bool
) -> int:
    total, made = 0, 0
    of_row = sizes.layer_weights
    if with_mlp_jacobians:
        of_row += sizes.d_model**2 - sizes.mlp_weights
        made = 2 * sizes.d_model**2 * sizes.d_mlp
    for object_layer in {object_ for _, object_ in pairs}:
        n_layers = object_layer - min(subject for subject, other in pairs if other == object_layer)
        total += 2 * sizes.d_model * text.n_after * n_layers * of_row
    n_below = max(object_ for _, object_ in pairs) - min(subject for subject, _ in pairs)
    return total + made * text.n_after * n_below


def _sketch_operations(
    sizes: ModelSizes, text: TextLength, pairs: Sequence[tuple[int, int]], sketch: Sketch
) -> int:
    of_layer = 2 * text.n_after * sizes.layer_weights
    if len(pairs) == 1:
        (subject, object_), n_products = pairs[0], 2 * sketch.least_size + 1
        return n_products * (object_ - subject) * of_layer
    total = 0
    for layer in {subject for subject, _ in pairs}:
        n_layers = max(object_ for subject, object_ in pairs if subject == layer) - layer
        total += (grid_width(pairs, sketch) + 1) * n_layers * of_layer
    for layer in {object_ for _, object_ in pairs}:
        total += sketch.size * (layer - min(subject for subject, object_ in pairs if object_ == layer)) * of_layer
    return total


def in_mebibytes(n_bytes: int) -> str:
    """`1,234 MiB`."""
    return f"{n_bytes / 2**20:,.0f} MiB"
