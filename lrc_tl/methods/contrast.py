"""Directions without a relation: from texts of two classes or more, or from contrast pairs."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lrc_tl.arguments.near_names import did_you_mean
from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.markup.caller_warnings import warn_caller
from lrc_tl.methods.baselines import baseline_concepts
from lrc_tl.methods.method import BASELINES
from lrc_tl.models.chat import Text, as_texts
from lrc_tl.models.fingerprint import ModelFingerprint, fingerprints_once
from lrc_tl.models.hooked_model import HookedModel, hook_name
from lrc_tl.numerics.contrasts import held_out_separation, pair_agreement, principal_difference
from lrc_tl.numerics.precision import wide_dtype
from lrc_tl.numerics.statistics import beats_chance
from lrc_tl.passes.content import At, content_activations

PAIR_METHODS = {"pair-pca": False, "pair-pca-centred": True}
"""Methods of pairs alone, and whether they take the mean difference out first."""
_NAMES = ("positive", "negative")
_FEW = 5
"""Fewer than this cannot beat chance at 5 %, however well they do."""
_SOURCE = "(arXiv:2407.12404, 2602.17881)"
_ADVICE = "give more texts, another layer, or another place (at=)"


@numbers_checked
@fingerprints_once()
def contrast_concepts(
    model: HookedModel,
    *,
    positive: Sequence[Text] | None = None,
    negative: Sequence[Text] | None = None,
    classes: Mapping[str, Sequence[Text]] | None = None,
    names: tuple[str, str] | None = None,
    layer: int,
    at: At = "last",
    paired: bool = False,
    method: str = "mean-difference",
    relation: str = "contrast",
    centre: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> ConceptSet:
    """One direction for each class of texts: `positive` and `negative`, or those of `classes`, by name.

    Each text, or chat, is one activation at `layer`. With two classes and `"mean-difference"` the directions are
    opposite, and each is the difference of the class means, the usual steering vector.

    Each text (with `paired` each pair) is held out once, to see on which side a difference of means without it
    puts it; with `paired` also whether its difference points along those of the others. The result is in
    `settings["checks"]`. Where it is no better than chance the directions are not to be trusted, which is warned
    about: steering along them then works for few texts (arXiv:2407.12404, 2602.17881).

    Args:
        names: what the objects are called in place of `positive` and `negative`.
        at: the content tokens that are read: `"last"`, `"mean"` over all, a place such as `-2`, or the mean of a
            `slice`. Special tokens are no content: the beginning of sequence and the marks of a chat never count.
        paired: the k-th positive and the k-th negative text differ in the concept alone.
        method: a baseline of `lrc_tl.methods.METHODS`, such as `"logistic"` or `"lda"`; or, with `paired`, the
            first principal component of the pairs' differences: `"pair-pca"` (as steering-vectors' PCA, repeng's
            `pca_center`) or `"pair-pca-centred"`, which takes the mean difference out first (repeng's `pca_diff`).
            It has unit length and points along the mean difference.
        centre: count scores from halfway between the classes: from the mean of the class means.
        seed: of the method's draws.

    Raises:
        ValueError: neither `positive` and `negative` nor `classes`, fewer than two classes or two texts in one, a
            text in two classes, an empty text, pairs of two lengths, an unknown method, or one of pairs without
            `paired`.
        PositionError: a text has no content token there.
    """
    texts = _classes(model, positive, negative, classes, names)
    _require_method(method, paired=paired)
    _check_texts(texts, paired=paired)
    objects = [name for name, own in texts.items() for _ in own]
    acts = content_activations(model, [text for own in texts.values() for text in own], layer=layer, at=at,
                               progress=progress)  # fmt: skip
    labels = {name: torch.tensor([other == name for other in objects], device=acts.device) for name in texts}
    if method in PAIR_METHODS:
        concepts = _pair_concepts(
            acts,
            labels,
            method=method,
            hook_name=hook_name(model, layer),
            relation=relation,
            fingerprint=ModelFingerprint.of(model),
        )
    else:
        concepts = baseline_concepts(
            acts,
            objects,
            method=method,
            hook_name=hook_name(model, layer),
            relation=relation,
            fingerprint=ModelFingerprint.of(model),
            seed=seed,
        )
    if centre:
        concepts = concepts.centred(torch.stack([acts[inside].mean(0) for inside in labels.values()]))
    checks = _checks(acts, labels, paired=paired)
    settings = {
        "method": method,
        "seed": seed,
        "at": repr(at) if isinstance(at, slice) else at,
        "paired": paired,
        "centred": centre,
        "n_texts": {name: len(own) for name, own in texts.items()},
        "checks": checks,
    }
    return ConceptSet(dict(concepts), settings=settings)


def _require_method(method: str, *, paired: bool) -> None:
    """Raise ValueError unless the method is one of contrasts, and of these."""
    if method in PAIR_METHODS and not paired:
        raise ValueError(
            f"method {method!r} goes by the differences of pairs; give paired=True, or another method"
        )
    if method not in PAIR_METHODS and method not in BASELINES:
        names = (*BASELINES, *PAIR_METHODS)
        raise ValueError(f"no method {method!r} of contrasts; {did_you_mean(method, names)}")


def _pair_concepts(
    acts: Tensor,
    labels: Mapping[str, Tensor],
    *,
    method: str,
    hook_name: str,
    relation: str,
    fingerprint: ModelFingerprint,
) -> ConceptSet:
    first, second = labels.values()
    axis = principal_difference(acts[first] - acts[second], centred=PAIR_METHODS[method])
    axis = axis.to(acts.device, wide_dtype(acts.dtype))
    return ConceptSet(
        {
            name: ConceptDirection.from_unscaled(
                vector,
                relation=relation,
                object_name=name,
                hook_name=hook_name,
                method=method,
                fingerprint=fingerprint,
            )
            for name, vector in zip(labels, (axis, -axis), strict=True)
        }
    )


def _classes(
    model: HookedModel,
    positive: Sequence[Text] | None,
    negative: Sequence[Text] | None,
    classes: Mapping[str, Sequence[Text]] | None,
    names: tuple[str, str] | None,
) -> dict[str, tuple[str, ...]]:
    """The texts of each class, by its name."""
    if classes is not None:
        if positive is not None or negative is not None or names is not None:
            raise ValueError("classes is given with positive, negative or names; it holds names and texts of all")
        if not isinstance(classes, Mapping) or len(classes) < 2:
            raise ValueError(
                "classes must name two classes or more, as in {'formal': [...], 'casual': [...]}; given is "
                f"{classes!r:.60}"
            )
        return {name: as_texts(model, texts, f"classes[{name!r}]") for name, texts in classes.items()}
    if positive is None or negative is None:
        raise ValueError("give positive and negative texts, or classes={'formal': [...], 'casual': [...]}")
    own_names = _NAMES if names is None else as_tuple(names, "names", str)
    if len(set(own_names)) != 2 or len(own_names) != 2:
        raise ValueError(f"names is {names!r}; give two different ones, for the positive and the negative texts")
    return {
        own_names[0]: as_texts(model, positive, "positive"),
        own_names[1]: as_texts(model, negative, "negative"),
    }


def _check_texts(texts: Mapping[str, Sequence[str]], *, paired: bool) -> None:
    class_of: dict[str, str] = {}
    for name, own in texts.items():
        if len(own) < 2:
            raise ValueError(
                f"class {name!r} has {len(own)} text{'s' * (len(own) != 1)}; give two or more of each class"
            )
        for text in own:
            if (other := class_of.setdefault(text, name)) != name:
                raise ValueError(f"{text!r:.80} is in the classes {other!r} and {name!r}; leave it in one")
    sizes = [len(own) for own in texts.values()]
    if paired and (len(sizes) != 2 or sizes[0] != sizes[1]):
        raise ValueError(
            f"paired=True with classes of {', '.join(map(str, sizes))} texts; pairs need two classes with as many "
            "texts each"
        )


def _checks(acts: Tensor, labels: Mapping[str, Tensor], *, paired: bool) -> dict[str, object]:
    """What holding out said, as plain values; what is no better than chance is warned about."""
    checks: dict[str, object] = {}
    asked = list(labels.items())
    for name, inside in asked[:1] if len(asked) == 2 else asked:  # two classes are held against each other once
        found = held_out_separation(acts, inside, paired=paired)
        checks[name] = {"n": found.n, "n_right": found.n_right, "discriminability": found.discriminability}
        if no_better_than_chance(found.n_right, found.n):
            warn_caller(
                f"the direction of {name!r} is not to be trusted: directions made without each text put "
                f"{found.n_right} of {found.n} on their own side, no better than chance {_SOURCE}; {_ADVICE}"
            )
    if paired:
        first, second = labels.values()
        cosines = pair_agreement(acts[first] - acts[second])
        agreeing = int((cosines > 0).sum())
        checks["agreement"] = float(cosines.mean())
        checks["n_agreeing"] = agreeing
        if no_better_than_chance(agreeing, len(cosines)):
            warn_caller(
                f"the pairs do not agree: the differences of {agreeing} of {len(cosines)} point along those of "
                f"the others (mean cosine {float(cosines.mean()):.2f}), no better than chance {_SOURCE}; {_ADVICE}"
            )
    return checks


def no_better_than_chance(count: int, n: int) -> bool:
    """Of few, only those that do not all agree can be told from chance not to."""
    return not beats_chance(count, n) and (n >= _FEW or count < n)
