"""LinearRelationalEmbedding: the mean affine map from subject to object activations, and its inverse."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import get_type_hints

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.arguments.typechecking import checked
from lrc_tl.directions.concept_direction import ConceptDirection
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.errors import ArtifactError
from lrc_tl.lre.displays import lre_html, lre_text
from lrc_tl.lre.dual import dual_fit_of, require_no_noise
from lrc_tl.lre.fit_settings import FitDtype, Solver, SolverName, require_fit_dtype, sketch_for
from lrc_tl.lre.jacobian import check_layers
from lrc_tl.lre.subject_statistics import LayerStatistics, SubjectStatistics
from lrc_tl.markup.progress import shows_progress
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.models.hooked_model import HookedModel, block_hook
from lrc_tl.numerics.low_rank import Factors
from lrc_tl.passes.activations import object_activations, subject_activations
from lrc_tl.passes.finite import finite_prompts
from lrc_tl.relations.prompts import ObjectAggregation, Prompt, tokens_once
from lrc_tl.storage.artifacts import read_artifact, write_artifact
from lrc_tl.storage.json_fields import checked_fields

_KIND = "lre"
_NOT_PLAIN = ("weight", "bias", "fingerprint")
_STORED_AS = {"solver": "method"}
"""Header keys that are not the name of their field."""
_ABSENT_IN_OLDER_FILES = {"method": "exact", "rank_limit": None, "n_products": None, "direction_errors": None}


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearRelationalEmbedding:
    """`R(s) = W s + b` between two layers of one model (Hernandez et al. 2023, arXiv:2308.09124, eq. 4)."""

    weight: Float[Tensor, "d_object d_subject"]
    bias: Float[Tensor, " d_object"]
    subject_layer: int
    """Counted from the start, like `object_layer`."""
    object_layer: int
    object_aggregation: ObjectAggregation
    n_prompts: int
    prompts_hash: str
    """Of the prompts that it was fitted on, in their order."""
    relation: str
    """The prompts' relation; their relations joined with " + " where there are several."""
    fingerprint: ModelFingerprint
    """The model that it was fitted on, checked whenever it is used on one."""
    solver: SolverName = "exact"
    """How it was fitted; `"exact"` also where the low-rank solver found the whole Jacobian cheaper."""
    rank_limit: int | None = None
    """The rank that a low-rank fit was made for; none above it is accepted."""
    n_products: int | None = None
    """Products with Jacobians for each prompt (d_model for an exact fit); None in older files."""
    direction_errors: Mapping[str, float] | None = None
    """For each object of its prompts, a bound of the angle (radians) between its direction at `rank_limit` and the
    exact one, right in most cases (`lrc_tl.numerics.direction_error`); None where there is no estimate."""

    __repr__ = lre_text
    _repr_html_ = lre_html

    @property
    def subject_hook(self) -> str:
        """Hook point of the subject activations, e.g. `"blocks.8.hook_resid_post"`."""
        return block_hook(self.subject_layer)

    @property
    def object_hook(self) -> str:
        """Hook point of the object activations."""
        return block_hook(self.object_layer)

    @classmethod
    @numbers_checked
    def fit(
        cls,
        model: HookedModel,
        prompts: Sequence[Prompt],
        *,
        subject_layer: int,
        object_layer: int,
        object_aggregation: ObjectAggregation = "mean",
        solver: Solver = "exact",
        fit_dtype: FitDtype = "model",
        memory_limit: int | None = None,
        progress: bool = True,
    ) -> "LinearRelationalEmbedding":
        """Mean Jacobian and mean bias over `prompts`, all of which are used.

        `W = mean_i J_i`, `b = mean_i [o_i - J_i s_i]`, in float32, or in the dtype of a wider model.
        `memory_limit` is in bytes, as in `subject_object_jacobians`. A low-rank fit also keeps what up to 32
        prompts have from the subject on. `solver=LowRank(rank=64)` computes only the leading part of W, in less
        time; `LowRank` says how.

        `fit_dtype="float32"` runs and differentiates a narrower model in float32 for the length of the fit, with
        the same weights: 4 bytes more for each of those in the embedding and the layers up to `object_layer`.
        Nothing else may run on the model meanwhile; it is then as it was, whatever happens.

        At equal layers W is zero, with a warning, unless the object is read at the subject's own token. Prompts
        whose residuals or Jacobian are not finite are left out, with a warning; `n_prompts` does not count them.

        Raises:
            ValueError: no prompts, or none that is finite, bad layers, another solver or `fit_dtype`, a `LowRank`
                without a rank or beyond the model's width, or what `subject_object_jacobians` refuses.
        """
        prompts = as_tuple(prompts, "prompts", Prompt)
        require_fit_dtype(fit_dtype)
        pair = check_layers(model, subject_layer, object_layer)
        sketch = sketch_for(solver, int(model.cfg.d_model))
        # The grid makes embeddings, so at the top of both files the imports would go round in a circle.
        from lrc_tl.lre.layer_grid import fit_one_pair

        return fit_one_pair(
            model,
            prompts,
            pair,
            sketch,
            object_aggregation=object_aggregation,
            fit_dtype=fit_dtype,
            memory_limit=memory_limit,
            progress=progress,
        )

    def predict(self, subject_acts: Float[Tensor, "*batch d_subject"]) -> Float[Tensor, "*batch d_object"]:
        """`W s + b` for each row.

        Raises:
            ValueError: the rows are of another width than the subjects.
        """
        _require_rows(subject_acts, self.weight.shape[1])
        objects: Tensor = subject_acts.to(self.weight) @ self.weight.T + self.bias
        return objects

    @property
    def singular_values(self) -> Float[Tensor, " rank"]:
        """Singular values of the weight, largest first."""
        values: Tensor = torch.linalg.svdvals(self.weight)
        return values

    @numbers_checked
    def invert(
        self, object_acts: Float[Tensor, "*batch d_object"], *, rank: int | None = None, ridge: float = 0.0
    ) -> Float[Tensor, "*batch d_subject"]:
        """`R^+(o) = W^+ (o - b)` for each row, with the rank-`rank` pseudo-inverse of W (arXiv:2311.08968, eq. 4).

        With a `ridge` singular values count as `s / (s^2 + l^2)` in place of `1 / s`, `l` being that share of the
        largest one: small ones fade out instead of being cut off, and no rank is needed (None: all there is). A
        low-rank LRE has no more than the rank that it was fitted for; its `direction_errors` hold without a ridge.

        Raises:
            ValueError: rows of another width than the objects, neither rank nor ridge, a negative ridge, a rank
                outside 1 to the numerical rank of the weight, which the text gives, or above the rank that a
                low-rank LRE was fitted for.
        """
        _require_rows(object_acts, self.weight.shape[0])
        if rank is None:
            if ridge == 0:
                raise ValueError("neither rank nor ridge was given; give rank=64, ridge=0.2, or both")
            # At least 1, so that a zero weight is refused as such.
            rank = max(1, self.numerical_rank)
        self.require_fitted_for(rank)
        return self.svd.solve(object_acts.to(self.weight) - self.bias, rank=rank, ridge=ridge)

    @numbers_checked
    def require_fitted_for(self, rank: int) -> None:
        """Raise ValueError where this is a low-rank LRE for a lower rank."""
        if self.rank_limit is not None and self.rank_limit < rank:
            raise ValueError(
                f"rank {rank} is above {self.rank_limit}, which this low-rank LRE was fitted for; fit it again "
                f"with rank={rank}"
            )

    @cached_property
    def svd(self) -> Factors:
        """Singular value decomposition of the weight, computed once."""
        return Factors.of(self.weight)

    @property
    def numerical_rank(self) -> int:
        """The largest rank that `invert` and `concepts` accept, and what they use with a ridge alone."""
        rank = self.svd.numerical_rank
        return rank if self.rank_limit is None else min(rank, self.rank_limit)

    @numbers_checked
    @shows_progress
    @tokens_once()
    def concepts(
        self,
        model: HookedModel,
        prompts: Sequence[Prompt],
        *,
        rank: int | None = None,
        ridge: float = 0.0,
        prior: SubjectStatistics | None = None,
        noise: float | None = None,
        progress: bool = True,
    ) -> ConceptSet:
        """One direction for each object: the unit mean of `R^+(o_i)` over its prompts (arXiv:2311.08968, eq. 5).

        `rank` alone is the paper's method; `ridge` (0.2, say) is another inverse, see `invert`. With a `prior`,
        statistics of many subjects, each direction reads with one vector and writes with its dual
        (`lrc_tl.lre.dual`). Its scores count from the mean of the prompts' subjects, read without examples
        (`Prompt.without_examples`). They need neither rank nor ridge; a rank takes the leading part of W alone.
        Prompts with residuals that are not finite are left out with a warning.

        Args:
            noise: of the objects, as a share of their mean variance. None: chosen on these prompts by leaving each
                out (`DualFit.choose_noise`).

        Raises:
            ValueError: no prompts, a noise without a prior, a ridge with one, or what `invert` or `DualFit`
                refuses.
            FingerprintMismatch: the LRE or the prior was made on another model.
        """
        prompts = as_tuple(prompts, "prompts", Prompt)
        if not prompts:
            raise ValueError("no prompts to make concepts from; give at least one for each object")
        self.require_model(model)
        statistics = None if prior is None else prior[self.subject_layer]
        # What these options refuse is refused before the model runs.
        if statistics is None:
            require_no_noise(noise)
            self.invert(self.bias, rank=rank, ridge=ridge)
        else:
            dual_fit_of(self, statistics, rank=rank, ridge=ridge, noise=noise)

        def read(given: Sequence[Prompt]) -> tuple[Tensor | None, Tensor]:
            subjects = None
            if statistics is not None:
                plain = [prompt.without_examples() for prompt in given]
                subjects = subject_activations(model, plain, layer=self.subject_layer)
            aggregation = self.object_aggregation
            return subjects, object_activations(
                model, given, layer=self.object_layer, object_aggregation=aggregation
            )

        prompts, (subjects, objects) = finite_prompts(prompts, read)
        names = [prompt.object for prompt in prompts]
        return self.concepts_from_activations(
            objects, names, rank=rank, ridge=ridge, prior=statistics, subject_acts=subjects, noise=noise
        )

    @numbers_checked
    @checked
    def concepts_from_activations(
        self,
        object_acts: Float[Tensor, "prompt d_object"],
        objects: Sequence[str],
        *,
        rank: int | None = None,
        ridge: float = 0.0,
        prior: LayerStatistics | None = None,
        subject_acts: Float[Tensor, "prompt d_subject"] | None = None,
        noise: float | None = None,
    ) -> ConceptSet:
        """`concepts` from object activations that were read before, with the name of each row's object.

        Args:
            prior: the statistics of the LRE's subject layer; with it go `subject_acts`, the subject of each row
                in a prompt without examples.

        Raises:
            ValueError: no rows, another number of names, one of `prior` and `subject_acts` without the other, or
                what `concepts` refuses.
        """
        objects = as_tuple(objects, "objects", str)
        if not objects or len(objects) != len(object_acts):
            raise ValueError(
                f"{len(object_acts)} activations and {len(objects)} objects were given; give one object for each "
                "of at least one activation"
            )
        if (prior is None) != (subject_acts is None):
            given, missing = ("subject_acts", "prior") if prior is None else ("prior", "subject_acts")
            raise ValueError(f"{given} is given without {missing}; dual directions need both")
        if prior is not None and subject_acts is not None:
            fit = dual_fit_of(self, prior, rank=rank, ridge=ridge, noise=noise)
            return fit.directions(object_acts, objects, subject_acts, noise=noise)
        require_no_noise(noise)
        inverted = self.invert(object_acts, rank=rank, ridge=ridge)
        rows: dict[str, list[int]] = defaultdict(list)
        for number, name in enumerate(objects):
            rows[name].append(number)
        return ConceptSet(
            {
                name: ConceptDirection.from_unscaled(
                    inverted[numbers].mean(0),
                    relation=self.relation,
                    object_name=name,
                    hook_name=self.subject_hook,
                    method="lrc-ridge" if ridge else "lrc",
                    fingerprint=self.fingerprint,
                )
                for name, numbers in rows.items()
            },
            settings={
                "object_layer": self.object_layer,
                "object_aggregation": self.object_aggregation,
                "rank": self.rank_limit if rank is None else rank,
                **({"ridge": ridge} if ridge else {}),
                "n_lre_prompts": self.n_prompts,
                "lre_prompts_hash": self.prompts_hash,
                **({} if self.solver == "exact" else {"lre_method": self.solver}),
            },
        )

    def save(self, path: str | Path) -> None:
        """Write weight, bias and all that made them to a safetensors file, which appears whole or not at all.

        Raises:
            ArtifactError: the folder is missing.
        """
        plain = [field.name for field in fields(self) if field.name not in _NOT_PLAIN]
        header = {_STORED_AS.get(name, name): getattr(self, name) for name in plain}
        errors = None if self.direction_errors is None else dict(self.direction_errors)
        write_artifact(
            path,
            kind=_KIND,
            tensors={"weight": self.weight, "bias": self.bias},
            header={**header, "direction_errors": errors, "fingerprint": self.fingerprint.to_dict()},
        )

    @classmethod
    def load(cls, path: str | Path, *, model: HookedModel | None = None) -> "LinearRelationalEmbedding":
        """The LRE that `save` wrote, bit for bit, on the CPU; checked against `model` where one is given.

        Raises:
            ArtifactError: the file is missing, damaged, changed, or no LRE of a known version.
            FingerprintMismatch: it was fitted on another model.
        """
        tensors, header = read_artifact(path, kind=_KIND)
        try:
            if set(tensors) != {"weight", "bias"}:
                raise ValueError(f"its tensors are {sorted(tensors)}; they must be weight and bias")
            weight, bias = tensors["weight"], tensors["bias"]
            if weight.ndim != 2 or bias.shape != weight.shape[:1] or not weight.numel():
                raise ValueError(f"weight {tuple(weight.shape)} and bias {tuple(bias.shape)} do not fit together")
            if weight.dtype not in (torch.float32, torch.float64) or bias.dtype != weight.dtype:
                raise ValueError(f"weight is {weight.dtype}, bias {bias.dtype}; both must be float32 or float64")
            hints = get_type_hints(cls) | {"fingerprint": dict, "direction_errors": dict[str, float] | None}
            del hints["weight"], hints["bias"]
            keys = {name: _STORED_AS.get(name, name) for name in hints}
            expected = {keys[name]: hint for name, hint in hints.items()}
            stored = checked_fields(header, expected, what="header", defaults=_ABSENT_IN_OLDER_FILES)
            plain = {name: stored[key] for name, key in keys.items()}
            fingerprint = ModelFingerprint.from_dict(plain.pop("fingerprint"))
            lre = cls(weight=weight, bias=bias, fingerprint=fingerprint, **plain)
        except ValueError as error:
            raise ArtifactError(f"{path}: its content does not describe an LRE: {error}") from error
        if model is not None:
            lre.require_model(model)
        return lre

    def require_model(self, model: HookedModel) -> None:
        """Check that this was fitted on `model`.

        Raises:
            FingerprintMismatch: it was fitted on another one.
        """
        if self.fingerprint is not None:
            self.fingerprint.require_model(model, what="this LRE was made")


def _require_rows(acts: Tensor, width: int) -> None:
    # One number, or rows of one, would be broadcast without a word.
    if acts.ndim == 0 or acts.shape[-1] != width:
        raise ValueError(
            f"rows of shape {tuple(acts.shape)} were given; they must hold one vector of width {width} each"
        )
