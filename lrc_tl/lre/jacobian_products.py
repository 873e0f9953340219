"""Products of a prompt's Jacobians with vectors from either side, without the Jacobians."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.typechecking import checked
from lrc_tl.lre.jacobian_graph import (
    Pair,
    checked_positions,
    row_pieces,
    rows_at_once,
    subject_object_graph,
)
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.numerics.out_of_memory import PieceSize
from lrc_tl.passes.prefix_cache import PrefixCache
from lrc_tl.relations.object_aggregation import Aggregations
from lrc_tl.relations.prompts import TokenizedPrompt


class JacobianProducts:
    """`J v` and `J^T u` for the Jacobians of one prompt: a forward pass here, a thin pass for each batch of rows.

    The gradient at the subject is linear in the one at the object, `g = J^T u`, so the reverse of that reverse
    pass gives `J v` from the same graph, closed forms and cached prefix included, at the price of a reverse pass.
    The graph is kept as long as this object: about the activations from the subject on, twice.
    """

    def __init__(
        self,
        model: HookedModel,
        tokens: TokenizedPrompt,
        pairs: Sequence[Pair],
        *,
        object_aggregation: Aggregations = "mean",
        memory_limit: int | None = None,
        cache: PrefixCache | None = None,
        pieces: PieceSize | None = None,
        mlp_jacobians: bool = False,
    ) -> None:
        """`pieces` is shared by prompts that remember how many rows memory is enough for.

        `mlp_jacobians` are kept as long as this object, and pay where it is asked for many products.
        """
        positions = checked_positions(model, tokens, {object_ for _, object_ in pairs}, object_aggregation)
        self._n_rows = rows_at_once(model, tokens, memory_limit)
        self._pieces = row_pieces() if pieces is None else pieces
        with torch.inference_mode(False), torch.enable_grad():
            self._subjects, self._objects = subject_object_graph(
                model, tokens, pairs, positions, cache=cache, mlp_jacobians=mlp_jacobians
            )
            self._cotangents = {
                layer: torch.zeros_like(activation).requires_grad_(True)
                for layer, activation in self._objects.items()
            }
            layers = sorted(self._objects)
            pulled = torch.autograd.grad(
                [self._objects[layer] for layer in layers],
                list(self._subjects.values()),
                [self._cotangents[layer] for layer in layers],
                create_graph=True,
                materialize_grads=True,
            )
        self._pulled = dict(zip(self._subjects, pulled, strict=True))
        self._pairs = tuple(pairs)

    def subject(self, layer: int) -> Float[Tensor, " d_subject"]:
        """The residual stream at the subject."""
        return self._subjects[layer].detach()

    def object(self, layer: int) -> Float[Tensor, " d_object"]:
        """The residual stream at the object."""
        return self._objects[layer].detach()

    @checked
    def forward(
        self, subject_layer: int, rows: Float[Tensor, "row d_subject"]
    ) -> dict[int, Float[Tensor, "row d_object"]]:
        """`J v` for each row, at every object layer that `subject_layer` makes a pair with."""
        targets = {object_: self._cotangents[object_] for layer, object_ in self._pairs if layer == subject_layer}
        return self._products(self._pulled[subject_layer], targets, rows)

    @checked
    def reverse(
        self, object_layer: int, rows: Float[Tensor, "row d_object"]
    ) -> dict[int, Float[Tensor, "row d_subject"]]:
        """`J^T u` for each row, at every subject layer that `object_layer` makes a pair with."""
        sources = {subject: self._subjects[subject] for subject, layer in self._pairs if layer == object_layer}
        return self._products(self._objects[object_layer], sources, rows)

    def _products(self, output: Tensor, inputs: dict[int, Tensor], rows: Tensor) -> dict[int, Tensor]:
        """The gradient of `output` with respect to each layer's input for each row."""
        if not output.requires_grad:  # it does not depend on any of them
            return {layer: rows.new_zeros(len(rows), len(activation)) for layer, activation in inputs.items()}

        def pull_back(row: Tensor) -> tuple[Tensor, ...]:
            return torch.autograd.grad(
                output, list(inputs.values()), row, retain_graph=True, materialize_grads=True
            )

        run: Callable[[Tensor], tuple[Tensor, ...]] = torch.func.vmap(pull_back)

        parts: list[tuple[Tensor, ...]] = []

        with torch.inference_mode(False), torch.enable_grad():
            self._pieces.run(len(rows), self._n_rows, lambda start, stop: parts.append(run(rows[start:stop])))
        return {
            layer: torch.cat(parts_of_layer)
            for layer, parts_of_layer in zip(inputs, zip(*parts, strict=True), strict=True)
        }
