"""The methods of the benchmark in one table, and the layers and ranks that each runs at. Needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from lrc_tl.arguments.near_names import did_you_mean
from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.relations.prompts import ObjectAggregation

RIDGE_SHARE = 0.2
"""Of the largest singular value; see `LinearRelationalEmbedding.invert`."""
SUBJECT_SHARE = 0.5
"""Of the depth: the subject layer where none is given, such as 9 of 18."""
OBJECT_SHARE = 0.72
"""Of the depth: the object layer of LREs where none is given, such as 13 of 18. Some methods have the last."""


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to make directions: what a caller must give for it, and what `lrc_tl.methods.fitting` does with that.

    A method has an LRE, or is a baseline, which is made from subject activations and objects alone.
    """

    name: str
    summary: str
    """What it is, in one sentence of at most 60 characters, which the command line's help shows."""
    object_layer: Literal["given", "half_way", "last"] | None = None
    """Where its LRE reads the object: at the layer given, half way from the subject layer to that, or at the last
    layer. None: it has no LRE."""
    aggregation: ObjectAggregation = "mean"
    """How its LRE reads an object of several tokens."""
    inverse: Literal["rank", "ridge", "dual"] | None = None
    """What keeps the inverse of its LRE from blowing up noise: a rank that is given, a ridge of `RIDGE_SHARE`, or
    for dual directions the covariance of subjects and a noise. None: it has no LRE."""
    with_object_layer: str | None = None
    """The method that a caller who gives an object layer means, where this one has a layer of its own."""
    lre_for_each: Literal["same_object", "other_objects"] | None = None
    """Each direction has an LRE of its own, from prompts with its object alone or from all but these. None: all
    share one."""
    combines: tuple["Method", ...] = ()
    """Its directions are those of these methods, combined (`combine_concepts`), each with the rank or ridge of the
    whole. What reads half way is left out where no layer lies there."""
    noise: float | None = None
    """Of dual directions where none is given; None: chosen on the training prompts."""
    write_noise: float | None = None
    """That dual directions write with; None: the one that they read with."""
    metric: Literal["next_token"] | None = None
    """In which the noise of dual directions is even (`next_token_metric`); None: the identity."""
    adds_means: bool = False
    """Class means of the training subjects count too, with a small share (`lrc_tl.lre.dual_means`)."""
    open_settings: bool = False
    """`lrc-tl fit` may give it a ridge, and another way to read objects."""
    compares_objects: bool = True
    """It needs at least two objects (asked of baselines; `combine_concepts` asks by itself)."""
    shuffles: str | None = None
    """It is the baseline of this name with the objects permuted among the prompts."""

    @property
    def is_baseline(self) -> bool:
        """Whether it has no LRE, so that it needs no object layer and no rank."""
        return self.inverse is None

    @property
    def needs_rank(self) -> bool:
        """Whether a rank must be given."""
        return self.inverse == "rank"

    @property
    def is_dual(self) -> bool:
        """Whether it needs statistics of subjects: its directions read with one vector and write with its dual."""
        return self.inverse == "dual"

    @property
    def takes_object_layer(self) -> bool:
        """Whether it reads objects at a layer that is given."""
        return self.object_layer == "given"

    @property
    def shared_work(self) -> object:
        """A key that methods have in common if their LREs come from the same passes; each baseline has its own."""
        if self.is_baseline:
            return self.name
        return self.object_layer == "last", self.aggregation, self.lre_for_each is not None

    @property
    def ridge(self) -> float:
        """Of its inverse, as a share of the largest singular value; 0 where it has none."""
        return RIDGE_SHARE if self.inverse == "ridge" else 0.0


_FINAL = Method(
    name="lrc-final",
    summary="lrc from the first object token at the last layer.",
    object_layer="last",
    aggregation="first_token",
    inverse="rank",
)
_RIDGE = Method(
    name="lrc-ridge",
    summary="lrc with a ridge in place of the rank.",
    object_layer="given",
    inverse="ridge",
)
_MAP_GIVEN = Method(
    name="lrc-map-given",
    summary="lrc-map from objects at the object layer that is given.",
    object_layer="given",
    inverse="dual",
)
_FISHER_GIVEN = replace(_MAP_GIVEN, noise=30.0, write_noise=1.0, metric="next_token")
"""Much noise reads best, little writes best (`benchmarks/verdict.md`)."""
_FISHER = replace(
    _FISHER_GIVEN,
    name="lrc-fisher",
    summary="lrc-map, noise as the next token feels it; last layer.",
    object_layer="last",
    aggregation="first_token",
)
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method(
                name="lrc",
                summary="The paper's: an LRE inverted at a rank.",
                object_layer="given",
                inverse="rank",
                open_settings=True,
            ),
            _FINAL,
            Method(
                name="lrc-first",
                summary="lrc from the first object token.",
                object_layer="given",
                aggregation="first_token",
                inverse="rank",
            ),
            _RIDGE,
            Method(
                name="lrc-combined",
                summary="Two lrc-ridge and an lrc-final with a ridge, combined.",
                object_layer="given",
                inverse="ridge",
                combines=(replace(_RIDGE, object_layer="half_way"), _RIDGE, _FINAL),
            ),
            Method(
                name="lrc-same-object",
                summary="lrc, each direction from prompts with its object only.",
                object_layer="given",
                inverse="rank",
                lre_for_each="same_object",
            ),
            Method(
                name="lrc-other-objects",
                summary="lrc, each direction from prompts with other objects only.",
                object_layer="given",
                inverse="rank",
                lre_for_each="other_objects",
            ),
            Method(
                name="lrc-map",
                summary="Reads with one vector, writes with its dual; last layer.",
                object_layer="last",
                inverse="dual",
                with_object_layer="lrc-map-given",
            ),
            _MAP_GIVEN,
            _FISHER,
            Method(
                name="lrc-map-combined",
                summary="lrc-fisher of the given and last layer, and class means.",
                object_layer="given",
                inverse="dual",
                combines=(_FISHER_GIVEN, _FISHER),
                adds_means=True,
                noise=_FISHER.noise,
                write_noise=_FISHER.write_noise,
            ),
            Method(name="mean", summary="The object's mean subject activation.", compares_objects=False),
            Method(name="centred-mean", summary="mean, less the mean of all objects' means."),
            Method(name="mean-difference", summary="mean, less the mean of all other activations."),
            Method(name="svm", summary="A linear SVM, the object against the rest."),
            Method(name="logistic", summary="Logistic regression, the object against the rest."),
            Method(name="lda", summary="Linear discriminant analysis with shrinkage."),
            Method(name="pca", summary="centred-mean on its first principal components."),
            Method(name="random", summary="Gaussian directions, a control.", compares_objects=False),
            Method(
                name="shuffled-mean",
                summary="mean with the objects permuted, a control.",
                shuffles="mean",
            ),
            Method(
                name="shuffled-svm",
                summary="svm with the objects permuted, a control.",
                shuffles="svm",
            ),
        )
    }
)
"""Every method by its name. A new one is an entry here and, for a baseline, its function in
`lrc_tl.methods.baselines`."""
BASELINES = tuple(method.name for method in METHODS.values() if method.is_baseline)
"""Names of all baselines."""


@dataclass(frozen=True, kw_only=True)
class MethodVariant:
    """A method at one subject layer, and where it inverts an LRE at one object layer and rank."""

    name: str
    """The method's own where nothing is swept."""
    method: Method
    subject_layer: int
    object_layer: int | None
    rank: int | None
    """None: it has none, or a ridge in its place."""
    ridge: float = 0.0
    noise: float | None = None
    """Of dual directions; None: that of the fit's settings."""

    def components(self, n_layers: int) -> tuple["MethodVariant", ...]:
        """The variants whose directions are combined; itself, where it combines none."""
        if not self.method.combines:
            return (self,)
        assert self.object_layer is not None
        half_way = (self.subject_layer + self.object_layer) // 2
        layers = {"half_way": half_way, "given": self.object_layer, "last": n_layers - 1}
        parts: list[MethodVariant] = []
        for method in self.method.combines:
            assert method.object_layer is not None
            layer = layers[method.object_layer]
            if method.object_layer == "half_way" and layer <= self.subject_layer:
                continue
            name = f"{self.name} of layer {layer}, {method.name}"
            parts.append(replace(self, name=name, method=method, object_layer=layer))
        return tuple(parts)


def components_of(variants: Sequence[MethodVariant], n_layers: int) -> list[MethodVariant]:
    """All variants whose directions are made, in order: the components of those that combine some."""
    return [part for variant in variants for part in variant.components(n_layers)]


def method_variants(
    methods: Sequence[str],
    *,
    n_layers: int,
    subject_layers: Sequence[int],
    object_layers: Sequence[int],
    ranks: Sequence[int | None],
) -> tuple[MethodVariant, ...]:
    """Every method at every setting that matters to it. What is swept over stands in the variant's name.

    Layers count from the start. Object layers at or below a subject layer are left out. The rank None is for a
    caller who brings a ridge.

    Raises:
        ValueError: nothing is left of a method, or no ranks where it needs one.
    """
    variants: list[MethodVariant] = []
    for method in (METHODS[name] for name in methods):
        places: Mapping[str | None, Sequence[int | None]] = {
            "given": object_layers,
            "last": [n_layers - 1],
            None: [None],
        }
        objects = places[method.object_layer]
        its_ranks: Sequence[int | None] = ranks if method.needs_rank else [None]
        if not its_ranks:
            raise ValueError(f"{method.name} needs a rank, and none were given")
        several_pairs = len(subject_layers) * len(objects) > 1
        pairs = [
            (subject, object_)
            for subject in subject_layers
            for object_ in objects
            if object_ is None or object_ > subject or not several_pairs
        ]
        if not pairs:
            raise ValueError(
                f"{method.name}: no object layer of {list(objects)} lies above a subject layer of "
                f"{list(subject_layers)}"
            )
        for subject, object_ in pairs:
            for rank in its_ranks:
                swept = [
                    f"{what}={value}"
                    for what, value, count in (
                        ("subject", subject, len(subject_layers)),
                        ("object", object_, len(objects)),
                        ("rank", rank, len(its_ranks)),
                    )
                    if count > 1
                ]
                variants.append(
                    MethodVariant(
                        name=f"{method.name}@{','.join(swept)}" if swept else method.name,
                        method=method,
                        subject_layer=subject,
                        object_layer=object_,
                        rank=rank,
                        ridge=method.ridge,
                    )
                )
    return tuple(variants)


def default_subject_layer(n_layers: int) -> int:
    """The subject layer where none is given: half way."""
    return int(SUBJECT_SHARE * n_layers)


def default_object_layer(n_layers: int, *, subject_layer: int) -> int:
    """The object layer of LREs where none is given: at `OBJECT_SHARE` of the depth, above the subject layer."""
    return min(n_layers - 1, max(subject_layer + 1, round(OBJECT_SHARE * n_layers)))


def meant_method(method: Method, *, object_layer: int | None) -> Method:
    """The method, or the one that stands for it where an object layer is given."""
    if object_layer is None or method.with_object_layer is None:
        return method
    return METHODS[method.with_object_layer]


def default_method(*, rank: int | None, ridge: float = 0.0) -> str:
    """The method where none is named: the paper's with a rank or ridge, else the one that does best without."""
    return "lrc" if rank is not None or ridge else "lrc-map-combined"


def require_exact_fit(methods: Sequence[str], solver: str, *, argument: str = "solver") -> None:
    """Raise ValueError where a method needs all singular values, which a low-rank fit does not have.

    `solver` is the name of one, and `argument` what the error calls it.
    """
    if solver != "exact" and (ridged := [name for name in methods if METHODS[name].inverse == "ridge"]):
        raise ValueError(
            f"{argument} is {solver!r}, but {', '.join(ridged)} needs all singular values; use "
            f"{argument}='exact', or other methods"
        )


def require_methods(methods: Sequence[str]) -> None:
    """Raise ValueError unless there is at least one method, each is known, and none is given twice."""
    methods = as_tuple(methods, "methods", str)
    if not methods:
        raise ValueError(f"no methods were given; there are {', '.join(METHODS)}")
    for number, method in enumerate(methods):
        if method not in METHODS:
            raise ValueError(f"no method {method!r}; {did_you_mean(method, METHODS)}")
        if method in methods[:number]:
            raise ValueError(f"method {method!r} was given twice")
