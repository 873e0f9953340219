"""SubjectStatistics: how the activations of subjects vary, at each layer of one model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.errors import ArtifactError
from lrc_tl.lre.background import Background, background_rows, built_in_background
from lrc_tl.lre.displays import statistics_html
from lrc_tl.markup.progress import shows_progress
from lrc_tl.models.fingerprint import ModelFingerprint, fingerprints_once
from lrc_tl.models.hooked_model import HookedModel, layer_number
from lrc_tl.numerics.covariance import Covariance, shrinkage_of
from lrc_tl.numerics.precision import HOST
from lrc_tl.relations.words import caseless, find_word
from lrc_tl.storage.artifacts import read_artifact, write_artifact
from lrc_tl.storage.json_fields import checked_fields

LEAST_SAMPLES = 50
"""Fewer samples than this say too little about how subjects vary."""
Kind: TypeAlias = Literal["subjects", "texts"]
_KIND = "subject_statistics"


@numbers_checked
@dataclass(frozen=True, kw_only=True, eq=False)
class LayerStatistics:
    """Subject activations `s ~ N(mean, Sigma)` at one layer.

    The samples themselves are kept, since they are the factors of the covariance, and since a subject can then be
    taken out exactly.

    Raises:
        ValueError: fewer than 50 samples, samples without a source or not finite, or all samples equal.
    """

    layer: int
    """Counted from the start."""
    samples: Float[Tensor, "sample d_model"]
    """One row for each prompt, or for each token of plain texts; on the CPU."""
    kind: Kind
    """What `sources` holds: `"subjects"`, or `"texts"`."""
    sources: tuple[str, ...]
    """The subjects of the prompts, or the plain texts."""
    source_of: Int[Tensor, " sample"]
    """For each sample, the number of its source."""
    fingerprint: ModelFingerprint
    """The model that they were read on."""

    def __post_init__(self) -> None:
        if len(self.samples) < LEAST_SAMPLES:
            raise ValueError(
                f"{len(self.samples)} background samples at layer {self.layer}; a covariance needs "
                f"{LEAST_SAMPLES} or more, so give more prompts or texts"
            )
        if len(self.source_of) != len(self.samples) or not 0 <= int(self.source_of.min()) <= int(
            self.source_of.max()
        ) < len(self.sources):
            raise ValueError("each background sample needs the number of its source")
        if not bool(torch.isfinite(self.samples).all()):
            raise ValueError("a background sample is not finite; load the model in float32")
        if not bool((self.samples != self.samples[0]).any()):
            raise ValueError(f"all {len(self.samples)} background samples at layer {self.layer} are equal")

    @property
    def n_samples(self) -> int:
        """Activations that were counted."""
        return len(self.samples)

    @property
    def n_sources(self) -> int:
        """Subjects, or texts, that they come from."""
        return len(self.sources)

    @cached_property
    def mean(self) -> Float[Tensor, " d_model"]:
        """Mean of the samples, in float64 and residual-stream units."""
        return self.samples.double().mean(0)

    @cached_property
    def shrinkage(self) -> float:
        """Ledoit and Wolf's: the share of the covariance that is a multiple of the identity."""
        return shrinkage_of(self.samples)

    @cached_property
    def covariance(self) -> Covariance:
        """`(1 - a) S + a trace(S) / d_model I` as factors plus a diagonal, with `a = shrinkage`.

        S counts deviations from the mean of all samples, whatever relation they come from.
        """
        return Covariance.of_samples(self.samples, shrinkage=self.shrinkage)

    def __repr__(self) -> str:
        return (
            f"LayerStatistics(layer {self.layer}: {self.n_samples} samples of {self.n_sources} {self.kind}, "
            f"width {self.samples.shape[1]})"
        )


class SubjectStatistics(Mapping[int, LayerStatistics]):
    """Means and covariances of subject activations at layers of one model, by layer counted from the start.

    A layer's covariance is meant for that layer alone.
    """

    def __init__(self, layers: Iterable[LayerStatistics]) -> None:
        """Of layers that were read in the same pass.

        Raises:
            ValueError: no layers, a layer given twice, or layers of different models or samples.
        """
        by_layer: dict[int, LayerStatistics] = {}
        for statistics in layers:
            if statistics.layer in by_layer:
                raise ValueError(f"layer {statistics.layer} was given twice")
            by_layer[statistics.layer] = statistics
        if not by_layer:
            raise ValueError("statistics need at least one layer")
        first = next(iter(by_layer.values()))
        for statistics in by_layer.values():
            same_samples = statistics.sources == first.sources and torch.equal(
                statistics.source_of, first.source_of
            )
            if not same_samples or statistics.fingerprint != first.fingerprint:
                raise ValueError(
                    f"the layers {first.layer} and {statistics.layer} are of other samples or models; fit them "
                    "together"
                )
        self._by_layer = dict(sorted(by_layer.items()))

    @classmethod
    @shows_progress
    @numbers_checked
    @fingerprints_once()
    def fit(
        cls,
        model: HookedModel,
        *,
        layers: Sequence[int] | None = None,
        background: Background | None = None,
        cache: bool = True,
        progress: bool = True,
    ) -> "SubjectStatistics":
        """Statistics at these layers (None: all), from one pass over the background.

        Args:
            background: prompts, which give the activation at their last subject token each; or plain texts, which
                give those of every token except special ones. None: the subjects of all built-in relations, one
                activation for each subject and zero-shot template.
            cache: keep what the built-in background gives beside the packaged models, one file for each layer, and
                take it from there the next time.

        Raises:
            ValueError: fewer than 50 samples, a layer outside the model or given twice, or an empty text.
            TypeError: the background holds something else than prompts alone or texts alone.
            NotFiniteError: residuals that are not finite.
        """
        n_layers = int(model.cfg.n_layers)
        numbers = [layer_number(model, layer) for layer in (range(n_layers) if layers is None else layers)]
        if not numbers:
            raise ValueError("no layers to fit statistics at; give at least one, or None for all")
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"layers {list(layers or ())} name a layer twice; give each once")
        if background is None:
            # The cache makes statistics, so at the top of both files the imports would go round in a circle.
            from lrc_tl.lre.statistics_cache import cached_statistics

            prompts = built_in_background()
            if cache:
                return cls(cached_statistics(model, prompts, numbers, progress=progress))
            background = prompts
        return cls(layer_statistics(model, background, numbers, progress=progress))

    def __getitem__(self, layer: int) -> LayerStatistics:
        if layer not in self._by_layer:
            raise KeyError(
                f"there are no statistics of layer {layer}, but of {list(self._by_layer)}; fit them with "
                f"SubjectStatistics.fit(model, layers=[{layer}])"
            )
        return self._by_layer[layer]

    def __iter__(self) -> Iterator[int]:
        return iter(self._by_layer)

    def __len__(self) -> int:
        return len(self._by_layer)

    def __repr__(self) -> str:
        first = self._first
        return (
            f"SubjectStatistics({first.n_samples} samples of {first.n_sources} {first.kind} at the layers "
            f"{list(self)} of {self.fingerprint.name})"
        )

    _repr_html_ = statistics_html

    @property
    def _first(self) -> LayerStatistics:
        return next(iter(self._by_layer.values()))

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers, counted from the start."""
        return tuple(self._by_layer)

    @property
    def sources(self) -> tuple[str, ...]:
        """The subjects, or the plain texts, that the samples come from."""
        return self._first.sources

    @property
    def fingerprint(self) -> ModelFingerprint:
        """The model that the samples were read on."""
        return self._first.fingerprint

    def without(self, subjects: Iterable[str]) -> "SubjectStatistics":
        """The statistics as if these subjects had never been in the background.

        Neither case nor the spelling of accents counts. Of plain texts those are taken out whole that name one of
        the subjects.

        Raises:
            ValueError: fewer than 50 samples are left.
            TypeError: one string in place of several.
        """
        unwanted = {caseless(subject.strip()) for subject in as_tuple(subjects, "subjects", str)}
        kept = [number for number, source in enumerate(self.sources) if not self._is_of(source, unwanted)]
        if len(kept) == len(self.sources):
            return self
        new_number = torch.full((len(self.sources),), -1, device=HOST)
        new_number[kept] = torch.arange(len(kept), device=HOST)
        source_of = new_number[self._first.source_of]
        rows = source_of >= 0
        sources = tuple(self.sources[number] for number in kept)
        return SubjectStatistics(
            replace(statistics, samples=statistics.samples[rows], sources=sources, source_of=source_of[rows])
            for statistics in self.values()
        )

    def _is_of(self, source: str, subjects: set[str]) -> bool:
        text = caseless(source)
        if self._first.kind == "subjects":
            return text in subjects
        return any(subject in text and find_word(text, subject) is not None for subject in subjects)

    def require_model(self, model: HookedModel) -> None:
        """Check that the samples were read on `model`.

        Raises:
            FingerprintMismatch: they were read on another one.
        """
        self.fingerprint.require_model(model, what="these subject statistics were made")

    def save(self, path: str | Path) -> None:
        """Write samples and sources to a safetensors file, which appears whole or not at all.

        Raises:
            ArtifactError: the folder is missing.
        """
        first = self._first
        write_artifact(
            path,
            kind=_KIND,
            tensors={
                "source_of": first.source_of,
                **{f"layer.{layer}": statistics.samples for layer, statistics in self.items()},
            },
            header={
                "kind": first.kind,
                "sources": list(first.sources),
                "layers": list(self),
                "fingerprint": first.fingerprint.to_dict(),
            },
        )

    @classmethod
    def load(cls, path: str | Path, *, model: HookedModel | None = None) -> "SubjectStatistics":
        """The statistics that `save` wrote, bit for bit, on the CPU; checked against `model` where one is given.

        Raises:
            ArtifactError: the file is missing, damaged, changed, or no statistics of a known version.
            FingerprintMismatch: they were read on another model.
        """
        tensors, header = read_artifact(path, kind=_KIND)
        try:
            stored = checked_fields(
                header,
                {"kind": Kind, "sources": tuple[str, ...], "layers": list[int], "fingerprint": dict},
                what="header",
            )
            expected = {"source_of", *(f"layer.{layer}" for layer in stored["layers"])}
            if set(tensors) != expected:
                raise ValueError(f"its tensors are {sorted(tensors)}; they must be {sorted(expected)}")
            for name, tensor in tensors.items():
                dtypes, ndim = ((torch.int64,), 1) if name == "source_of" else ((torch.float32, torch.float64), 2)
                if tensor.dtype not in dtypes or tensor.ndim != ndim or not tensor.numel():
                    raise ValueError(
                        f"its tensor {name!r} is {tensor.dtype} of shape {tuple(tensor.shape)}; it must have "
                        f"{ndim} axes, be {' or '.join(map(str, dtypes))} and not be empty"
                    )
            if stored["kind"] not in ("subjects", "texts"):
                raise ValueError(f"its kind is {stored['kind']!r}; it must be 'subjects' or 'texts'")
            fingerprint = ModelFingerprint.from_dict(stored["fingerprint"])
            statistics = cls(
                LayerStatistics(
                    layer=layer,
                    samples=tensors[f"layer.{layer}"],
                    kind=stored["kind"],
                    sources=tuple(stored["sources"]),
                    source_of=tensors["source_of"],
                    fingerprint=fingerprint,
                )
                for layer in stored["layers"]
            )
        except ValueError as error:
            raise ArtifactError(f"{path}: its content does not describe subject statistics: {error}") from error
        if model is not None:
            statistics.require_model(model)
        return statistics


def layer_statistics(
    model: HookedModel, background: Background, layers: Sequence[int], *, progress: bool
) -> list[LayerStatistics]:
    """Statistics at layers counted from the start, from one pass; see `SubjectStatistics.fit`."""
    kind, sources, source_of, samples = background_rows(model, background, layers, progress=progress)
    if not samples:
        raise ValueError(f"0 background samples; give prompts or texts that hold {LEAST_SAMPLES} or more")
    fingerprint = ModelFingerprint.of(model)
    return [
        LayerStatistics(
            layer=layer,
            samples=samples[layer],
            kind=kind,
            sources=sources,
            source_of=source_of,
            fingerprint=fingerprint,
        )
        for layer in layers
    ]
