"""Dual concept directions: of each object one vector that reads it and one that writes it.

The subjects are taken as Gaussian, `s ~ N(mu, Sigma)`, and the object as what the LRE makes of them with noise,
`o = W s + b + e`, `e ~ N(0, noise tau I)`, `tau = trace(W Sigma W^T) / d_object`. Then the subject that object o
lets one expect lies along `Sigma r_o` with `r_o = W^T (W Sigma W^T + noise tau I)^-1 (m_o - m)`: `m_o` is the mean
object activation of o, `m` the mean of these over all objects. It is a Wiener filter. The pair has the form of the
causal inner product of Park et al. 2024 (arXiv:2311.03658), with the covariance of subjects in the place of that
of unembedding rows.

With a metric `M` of the objects' space the noise is `e ~ N(0, noise tau M^-1)`: small where a step matters, large
where it does not. The Fisher information of the next token (`next_token_metric`, arXiv:2605.17231) is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.errors import FingerprintMismatch
from lrc_tl.lre.subject_statistics import LayerStatistics
from lrc_tl.numerics.dual import LEAST_UNROTATED_NOISE, DualMap, require_noise, with_identity

if TYPE_CHECKING:
    from lrc_tl.lre.embedding import LinearRelationalEmbedding

METHOD = "lrc-map"
DEFAULT_NOISE = 10.0
"""Where no training facts tell a better one: as accurate as a chosen one on 25 relations (`benchmarks/README.md`).

Edits alone do better with 1."""
NOISES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Those that training facts choose among."""
IDENTITY_SHARE = 0.01
"""Of a metric, the rest of which may have eigenvalues of 0; as accurate as larger shares, or more."""
_LEAST_DISTANCE = 1e-6
"""Of two objects' mean activations, as a share of their length; nearer ones are equal."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseChoice:
    """The noise that reads left-out training facts best."""

    noise: float
    accuracies: Mapping[float, float]
    """For each noise, the share of counted facts whose object scores highest when they are left out."""
    n_facts: int
    """Facts that were counted."""
    n_left_out: int
    """Facts that no other prompt shares its object with: without them their object has no activation."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "noise": self.noise,
            "accuracies": [[noise, accuracy] for noise, accuracy in self.accuracies.items()],
            "n_facts": self.n_facts,
            "n_left_out": self.n_left_out,
        }


@numbers_checked
@dataclass(frozen=True, kw_only=True, eq=False)
class DualFit:
    """An LRE with the subjects' covariance at its subject layer: all that objects, labels and noise share."""

    lre: "LinearRelationalEmbedding"
    prior: LayerStatistics
    rank: int | None
    dual: DualMap
    metric_name: str | None = None
    """Of the metric that noise is even in; None: the identity."""

    @classmethod
    @numbers_checked
    def of(
        cls,
        lre: "LinearRelationalEmbedding",
        prior: LayerStatistics,
        *,
        rank: int | None = None,
        noise: float | None = None,
        metric: Float[Tensor, "d_object d_object"] | None = None,
        metric_name: str = "given",
    ) -> "DualFit":
        """The shared part for the whole weight, or for its `rank` largest singular values.

        A `noise` that will be asked for and is very small makes the solution rest on singular vectors too.

        Args:
            metric: of the objects' space, in which noise is even, such as `next_token_metric`; symmetric, with no
                eigenvalue below 0. A hundredth of the identity is mixed with it. None: the identity.
            metric_name: what the settings of concepts call it.

        Raises:
            FingerprintMismatch: the statistics are of another model.
            ValueError: they are of another layer or width, the weight is zero, its numerical rank or that of a
                low-rank fit is below `rank`, the noise is not above 0, or the metric is none or of another width.
        """
        if noise is not None:
            require_noise(noise)
        if rank is not None:
            lre.require_fitted_for(rank)
        if prior.layer != lre.subject_layer:
            raise ValueError(
                f"the statistics are of layer {prior.layer}, and the LRE's subject layer is {lre.subject_layer}; "
                f"fit them with SubjectStatistics.fit(model, layers=[{lre.subject_layer}])"
            )
        if not lre.fingerprint.is_same_model(prior.fingerprint):
            raise FingerprintMismatch(
                f"the statistics were made on {prior.fingerprint.name}, and the LRE on {lre.fingerprint.name}, or "
                "on other weights of that name; make both on one model"
            )
        factors = None
        if rank is not None:
            factors = lre.svd.leading(rank)
        elif noise is not None and noise < LEAST_UNROTATED_NOISE:
            factors = lre.svd.leading(max(1, lre.numerical_rank))
        mixed = None if metric is None else with_identity(metric, len(lre.weight), share=IDENTITY_SHARE)
        dual = DualMap.of(lre.weight, prior.covariance, factors=factors, metric=mixed)
        name = None if metric is None else metric_name
        return cls(lre=lre, prior=prior, rank=rank, dual=dual, metric_name=name)

    @numbers_checked
    def concepts(
        self,
        object_acts: Float[Tensor, "prompt d_object"],
        objects: Sequence[str],
        subject_acts: Float[Tensor, "subject d_subject"],
        *,
        noise: float,
        write_noise: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> ConceptSet:
        """A direction for each object, which reads with `r_o` and writes with `Sigma r_o`.

        With a `write_noise` it writes with the `Sigma r_o` of that noise. Much noise reads best and little writes
        best; such directions have the write rule `"given"`.

        Its score is `r_o . (a - mean of subject_acts)`, lengths kept, so that scores of different objects compare.

        Args:
            object_acts: object activations, with the name of each row's object.
            subject_acts: subjects of the relation's training facts, whose mean scores 0.

        Raises:
            ValueError: one object only, two objects with equal mean activations, a noise that is not above 0, or
                rows of other widths than the LRE's.
        """
        self._require_rows(object_acts, objects, subject_acts)
        names, means = _object_means(object_acts.double(), objects)
        _require_distinct(names, means)
        reading = self.dual.reading(means - means.mean(0), noise=noise)
        write_noise = noise if write_noise is None else write_noise
        writes_otherwise = write_noise != noise
        written = self.dual.reading(means - means.mean(0), noise=write_noise) if writes_otherwise else reading
        writing = self.dual.writing(written)
        offsets = reading @ subject_acts.to(reading).mean(0)
        dtype = self.lre.weight.dtype
        directions = {
            name: ConceptDirection.from_unscaled(
                reading[row].to(dtype),
                write_vector=writing[row].to(dtype),
                write_rule="given" if writes_otherwise else "covariance",
                offset=float(offsets[row]),
                relation=self.lre.relation,
                object_name=name,
                hook_name=self.lre.subject_hook,
                method=METHOD,
                fingerprint=self.lre.fingerprint,
            )
            for row, name in enumerate(names)
        }
        own = self._settings(noise, len(subject_acts))
        if writes_otherwise:
            own["write_noise"] = write_noise
        return ConceptSet(directions, settings={**own, **(settings or {})})

    @numbers_checked
    def directions(
        self,
        object_acts: Float[Tensor, "prompt d_object"],
        objects: Sequence[str],
        subject_acts: Float[Tensor, "prompt d_subject"],
        *,
        noise: float | None = None,
        write_noise: float | None = None,
    ) -> ConceptSet:
        """`concepts` with this noise, or (None) with the one that `choose_noise` takes on the same rows.

        The settings of the set then hold the choice under `"noise_choice"`.
        """
        if noise is not None:
            return self.concepts(object_acts, objects, subject_acts, noise=noise, write_noise=write_noise)
        choice = self.choose_noise(object_acts, objects, subject_acts)
        return self.concepts(
            object_acts,
            objects,
            subject_acts,
            noise=choice.noise,
            write_noise=write_noise,
            settings={"noise_choice": choice.to_dict()},
        )

    @numbers_checked
    def choose_noise(
        self,
        object_acts: Float[Tensor, "prompt d_object"],
        objects: Sequence[str],
        subject_acts: Float[Tensor, "prompt d_subject"],
        *,
        noises: Sequence[float] = NOISES,
    ) -> NoiseChoice:
        """The noise with which most training facts read right when they are left out of all means.

        W stays as it is, so no pass is needed: each fact is left out of its object's mean and of the mean subject.
        Of equally good ones the largest is taken. Facts that alone have their object are not counted; where none
        is left, the choice is `DEFAULT_NOISE`.

        Args:
            subject_acts: the subject of each row of `object_acts`, as it will be read (zero-shot).

        Raises:
            ValueError: no noises, one that is not above 0, or what `concepts` refuses.
        """
        if not noises:
            raise ValueError("no noises to choose from; give at least one")
        labels, counted = self._facts(object_acts, objects, subject_acts)
        n_facts = int(counted.sum())
        accuracies = {}
        for noise in noises:
            reading = self.dual.reading(object_acts, noise=noise)
            scores = _left_out_scores(subject_acts.to(reading), reading, labels)
            own = scores.gather(1, labels[:, None])
            right = (scores >= own).sum(1) == 1
            accuracies[float(noise)] = float(right[counted].double().mean()) if n_facts else 0.0
        best = max(accuracies, key=lambda noise: (accuracies[noise], noise)) if n_facts else DEFAULT_NOISE
        return NoiseChoice(noise=best, accuracies=accuracies, n_facts=n_facts, n_left_out=len(labels) - n_facts)

    @numbers_checked
    def left_out_lead(
        self,
        object_acts: Float[Tensor, "prompt d_object"],
        objects: Sequence[str],
        subject_acts: Float[Tensor, "subject d_subject"],
        *,
        noise: float,
    ) -> float | None:
        """How far training facts score their own object above the others when they are left out of all means.

        In units of the spread of an object's scores among the prior's subjects; the mean over the facts that
        `choose_noise` counts, None where there are none. It tells how much this LRE's scores are worth.

        Raises:
            ValueError: a noise that is not above 0, or what `choose_noise` refuses.
        """
        labels, counted = self._facts(object_acts, objects, subject_acts)
        if not bool(counted.any()):
            return None
        reading = self.dual.reading(object_acts, noise=noise)
        scores = _left_out_scores(subject_acts.to(reading), reading, labels)
        own = scores.gather(1, labels[:, None])[:, 0]
        n_objects = scores.shape[1]
        leads = own - (scores.sum(1) - own) / (n_objects - 1)
        members = torch.nn.functional.one_hot(labels).to(reading)
        means = (members / members.sum(0)).T @ reading
        means = means - means.mean(0)
        spread = float((means * self.dual.writing(means)).sum(1).clamp_min(0).sqrt().mean())
        return float(leads[counted].mean()) / spread if spread > 0 else 0.0

    def _facts(self, object_acts: Tensor, objects: Sequence[str], subject_acts: Tensor) -> tuple[Tensor, Tensor]:
        """The number of each fact's object, and whether another fact has it too."""
        self._require_rows(object_acts, objects, subject_acts)
        if len(subject_acts) != len(object_acts):
            raise ValueError(f"{len(subject_acts)} subjects for {len(object_acts)} objects; give one for each")
        names = list(dict.fromkeys(objects))
        labels = torch.tensor([names.index(name) for name in objects], device=self.lre.weight.device)
        return labels, torch.bincount(labels)[labels] > 1

    def _require_rows(self, object_acts: Tensor, objects: Sequence[str], subject_acts: Tensor) -> None:
        d_object, d_subject = self.lre.weight.shape
        for what, acts, width in (("object", object_acts, d_object), ("subject", subject_acts, d_subject)):
            if acts.ndim != 2 or acts.shape[1] != width or not len(acts):
                raise ValueError(
                    f"{what} activations of shape {tuple(acts.shape)} were given; they must be rows of width "
                    f"{width}"
                )
        if len(objects) != len(object_acts):
            raise ValueError(f"{len(objects)} objects for {len(object_acts)} activations; give one each")
        if len(set(objects)) < 2:
            raise ValueError(
                f"{METHOD} needs two or more objects, since it reads what sets them apart; given is "
                f"{objects[0]!r} alone"
            )

    def _settings(self, noise: float, n_subjects: int) -> dict[str, Any]:
        lre, prior = self.lre, self.prior
        return {
            "object_layer": lre.object_layer,
            "object_aggregation": lre.object_aggregation,
            "rank": lre.rank_limit if self.rank is None else self.rank,
            "noise": noise,
            **({} if self.metric_name is None else {"metric": self.metric_name}),
            "prior": {
                "kind": prior.kind,
                "n_samples": prior.n_samples,
                "n_sources": prior.n_sources,
                "shrinkage": prior.shrinkage,
            },
            "centred_on": n_subjects,
            "n_lre_prompts": lre.n_prompts,
            "lre_prompts_hash": lre.prompts_hash,
            **({} if lre.solver == "exact" else {"lre_method": lre.solver}),
        }


def _object_means(object_acts: Tensor, objects: Sequence[str]) -> tuple[list[str], Tensor]:
    names = list(dict.fromkeys(objects))
    rows = {name: [row for row, other in enumerate(objects) if other == name] for name in names}
    return names, torch.stack([object_acts[rows[name]].mean(0) for name in names])


def _require_distinct(names: Sequence[str], means: Tensor) -> None:
    length = float(means.norm(dim=1).mean())
    for row, name in enumerate(names[:-1]):
        distances = (means[row + 1 :] - means[row]).norm(dim=1)
        nearest = int(distances.argmin())
        if not float(distances[nearest]) > _LEAST_DISTANCE * length:
            raise ValueError(
                f"the mean object activations of {name!r} and {names[row + 1 + nearest]!r} are equal (they lie "
                f"{float(distances[nearest]):.2g} apart, and are {length:.2g} long), so nothing reads one and not "
                "the other; take another object layer, or one of the two objects"
            )


def _left_out_scores(
    subjects: Float[Tensor, "fact d_subject"],
    reading: Float[Tensor, "fact d_subject"],
    labels: Int[Tensor, " fact"],
) -> Float[Tensor, "fact object"]:
    """What each fact scores when it is left out of all means, of the objects and of the subjects.

    `reading` holds the reading vector of each fact's object activation. What all objects share in a score (the
    mean over objects) does not change their order, and is left out.
    """
    members = torch.nn.functional.one_hot(labels).to(reading)  # fact object
    counts = members.sum(0)
    sums = subjects @ (reading.T @ members)  # each subject times the sum of each object's reading vectors
    own = labels[:, None]
    fewer = (counts[labels] - 1).clamp_min(1)[:, None]  # facts of the own object without this one

    def without_own(of_objects: Tensor, of_fact: Tensor) -> Tensor:
        """Means over the facts of each object, those of the own one less the fact itself."""
        rows = of_objects.expand(len(labels), -1)
        return (rows / counts).scatter(1, own, (rows.gather(1, own) - of_fact[:, None]) / fewer)

    scores = without_own(sums, (subjects * reading).sum(1))
    of_all_subjects = without_own(sums.sum(0, keepdim=True), reading @ subjects.sum(0))
    return scores - (of_all_subjects - scores) / max(1, len(labels) - 1)


def dual_fit_of(
    lre: "LinearRelationalEmbedding",
    prior: LayerStatistics,
    *,
    rank: int | None,
    ridge: float,
    noise: float | None,
) -> DualFit:
    """The dual fit of an LRE, for which a ridge is refused."""
    if ridge:
        raise ValueError(
            f"ridge {ridge:g} is given with a prior, whose noise takes its place; give one of the two"
        )
    return DualFit.of(lre, prior, rank=rank, noise=noise)


def require_no_noise(noise: float | None) -> None:
    """Refuse a noise where there is no prior."""
    if noise is not None:
        raise ValueError(
            f"noise {noise:g} is given without a prior, and only dual directions have one; give "
            "prior=SubjectStatistics.fit(...) too, or leave noise out"
        )
