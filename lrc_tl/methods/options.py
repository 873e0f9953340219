"""What a method needs of its caller, and what it ignores: checked before the model runs."""

from lrc_tl.lre.fit_settings import LowRank, Solver, solver_name
from lrc_tl.methods.method import (
    METHODS,
    Method,
    MethodVariant,
    default_object_layer,
    default_subject_layer,
    method_variants,
    require_exact_fit,
)
from lrc_tl.models.hooked_model import HookedModel, layer_number
from lrc_tl.models.weights import require_fittable


def require_method_options(method: Method, *, rank: int | None, ridge: float = 0.0, solver: Solver) -> None:
    """Raise ValueError unless a method has the rank and solver that it needs.

    With a `ridge` of the caller's own, no rank is needed.
    """
    if method.needs_rank and rank is None and not ridge:
        without = next(other.name for other in METHODS.values() if other.inverse == "ridge")
        raise ValueError(f"{method.name} needs a rank; give one, such as 64, or take {without}, which has none")
    require_exact_fit([method.name], solver_name(solver))
    if method.needs_rank and rank is not None and isinstance(solver, LowRank):
        solver.for_rank(rank)  # refuses a rank above its own
    if method.is_dual and isinstance(solver, LowRank) and solver.rank is None:
        raise ValueError(
            f"{method.name} has no rank that the solver could be made for; give one to it, LowRank(rank=...), or "
            "take solver='exact'"
        )


def ignored_options(method: Method, *, object_layer: int | None, rank: int | None) -> str:
    """What to say of a layer or rank that a method does not have and that was given; empty where there is none."""
    ignored = {
        f"object layer {object_layer}": object_layer is not None and not method.takes_object_layer,
        f"rank {rank}": rank is not None and not method.needs_rank,
    }
    given = [option for option, is_ignored in ignored.items() if is_ignored]
    if not given:
        return ""
    return f"{method.name} takes no {' and no '.join(given)}; {'they are' if len(given) > 1 else 'it is'} ignored"


def require_layer_order(method: Method, *, subject_layer: int | None, object_layer: int | None) -> None:
    """Raise ValueError where, without a model, an object layer is seen not to lie above its subject layer.

    That is so for layers that are counted from the same end.
    """
    if subject_layer is None or object_layer is None or not method.takes_object_layer:
        return
    if (subject_layer < 0) != (object_layer < 0):
        return
    if object_layer <= subject_layer:
        raise ValueError(
            f"{method.name}: object layer {object_layer} is not above subject layer {subject_layer}; "
            "take an earlier subject layer or a later object layer"
        )


def require_places(
    model: HookedModel, method: Method, *, subject_layer: int | None, object_layer: int | None, rank: int | None
) -> MethodVariant:
    """The method at these layers (None: those by default) and rank, checked against the model before it runs.

    Raises:
        ValueError: a layer outside the model, an object layer that is not above the subject layer, or a rank
            outside 1 to the model's width.
        ModelError: LREs cannot be fitted on the model, since its weights are quantised or on several devices.
        NotFiniteError: they cannot, since its residuals overflow float16.
    """
    n_layers = int(model.cfg.n_layers)
    subject = default_subject_layer(n_layers) if subject_layer is None else layer_number(model, subject_layer)
    object_layers = []
    if method.takes_object_layer and object_layer is None:
        object_layers = [default_object_layer(n_layers, subject_layer=subject)]
    elif method.takes_object_layer and object_layer is not None:
        object_layers = [layer_number(model, object_layer)]
    (variant,) = method_variants(
        [method.name],
        n_layers=n_layers,
        subject_layers=[subject],
        object_layers=object_layers,
        ranks=[rank],
    )
    if variant.object_layer is not None and variant.object_layer <= variant.subject_layer:
        raise ValueError(
            f"{method.name}: object layer {variant.object_layer} is not above subject layer "
            f"{variant.subject_layer}; take an earlier subject layer or a later object layer"
        )
    d_model = int(model.cfg.d_model)
    if variant.rank is not None and not 1 <= variant.rank <= d_model:
        raise ValueError(f"rank is {variant.rank}; the model's residual stream allows 1 to {d_model}")
    if not method.is_baseline:
        require_fittable(model)
    return variant
