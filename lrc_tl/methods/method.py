"""The methods of the benchmark by name, and the layers and ranks that each runs at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.methods.baselines import BASELINES
from lrc_tl.relations.prompts import ObjectAggregation

BY_OBJECT = ("lrc-same-object", "lrc-other-objects")
"""Each direction from an LRE of its own: from prompts with its object alone, or from all but these."""
RIDGE, COMBINED = "lrc-ridge", "lrc-combined"
"""`lrc` with a ridge in place of the rank; and three such in one (`combine_concepts`): from the object layer, from
the layer half way to it (where there is one), and from the first object token at the final layer."""
RIDGE_SHARE = 0.2
"""Of the largest singular value; see `LinearRelationalEmbedding.invert`."""
METHODS = ("lrc", "lrc-final", "lrc-first", RIDGE, COMBINED, *BY_OBJECT, *BASELINES)
"""Names of all methods: LRC as in the paper; from the first object token at the final layer (the original LRE,
inverted), or at the object layer; with a ridge, and several of these in one; with an LRE for each object; and the
baselines."""


@dataclass(frozen=True, kw_only=True)
class MethodVariant:
    """A method at one subject layer, and where it inverts an LRE at one object layer and rank."""

    name: str
    """The method's own where nothing is swept."""
    method: str
    subject_layer: int
    object_layer: int | None
    rank: int | None
    """None: it has none, or a ridge in its place."""
    ridge: float = 0.0

    def components(self, n_layers: int) -> tuple["MethodVariant", ...]:
        """The variants whose directions are combined; itself, where it combines none."""
        if self.method != COMBINED:
            return (self,)
        assert self.object_layer is not None
        half = (self.subject_layer + self.object_layer) // 2
        places = [(RIDGE, self.object_layer), ("lrc-final", n_layers - 1)]
        if half > self.subject_layer:
            places.insert(0, (RIDGE, half))
        return tuple(
            replace(self, name=f"{self.name} of layer {layer}, {method}", method=method, object_layer=layer)
            for method, layer in places
        )

    @property
    def aggregation(self) -> ObjectAggregation:
        """How the method reads objects of several tokens."""
        return "first_token" if self.method in ("lrc-final", "lrc-first") else "mean"


def method_variants(
    methods: Sequence[str],
    *,
    n_layers: int,
    subject_layers: Sequence[int],
    object_layers: Sequence[int],
    ranks: Sequence[int],
) -> tuple[MethodVariant, ...]:
    """Every method at every setting that matters to it; more than one of a kind are named in the variant's name.

    Layers count from the start. Object layers at or below a subject layer are left out.

    Raises:
        ValueError: nothing is left of a method.
    """
    made: list[MethodVariant] = []
    for method in methods:
        objects: Sequence[int | None] = object_layers
        own_ranks: Sequence[int | None] = ranks
        ridge = RIDGE_SHARE if method in (RIDGE, COMBINED) else 0.0
        if ridge:
            own_ranks = [None]
        if method in BASELINES:
            objects, own_ranks = [None], [None]
        elif method == "lrc-final":
            objects = [n_layers - 1]
        before = len(made)
        for subject in subject_layers:
            for object_ in objects:
                if object_ is not None and object_ <= subject and len(subject_layers) * len(objects) > 1:
                    continue
                for rank in own_ranks:
                    swept = [
                        (what, value)
                        for what, value, count in (
                            ("subject", subject, len(subject_layers)),
                            ("object", object_, len(objects)),
                            ("rank", rank, len(own_ranks)),
                        )
                        if count > 1
                    ]
                    suffix = ",".join(f"{what}={value}" for what, value in swept)
                    made.append(
                        MethodVariant(
                            name=f"{method}@{suffix}" if suffix else method,
                            method=method,
                            subject_layer=subject,
                            object_layer=object_,
                            rank=rank,
                            ridge=ridge,
                        )
                    )
        if len(made) == before:
            raise ValueError(
                f"{method}: no object layer of {list(objects)} lies above a subject layer of "
                f"{list(subject_layers)}"
            )
    return tuple(made)


def require_exact_fit(methods: Sequence[str], fit_method: str) -> None:
    """Raise ValueError where a method needs all singular values, which a low-rank fit has not."""
    if fit_method != "exact" and (ridged := [method for method in methods if method in (RIDGE, COMBINED)]):
        raise ValueError(
            f"fit_method is {fit_method!r}, but {', '.join(ridged)} needs all singular values; use "
            "fit_method='exact', or other methods"
        )


def require_methods(methods: Sequence[str]) -> None:
    """Raise ValueError unless there is at least one, each is known, and none comes twice."""
    methods = as_tuple(methods, "methods", str)
    if not methods:
        raise ValueError(f"no methods were given; there are {', '.join(METHODS)}")
    for number, method in enumerate(methods):
        if method not in METHODS:
            near = get_close_matches(method, METHODS, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(METHODS)}"
            raise ValueError(f"no method {method!r}; {hint}")
        if method in methods[:number]:
            raise ValueError(f"method {method!r} was given twice")
