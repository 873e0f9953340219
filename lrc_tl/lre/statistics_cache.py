"""Statistics of the built-in background, kept beside the packaged models: one file for each model and layer."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lrc_tl.errors import ArtifactError
from lrc_tl.lre.subject_statistics import LayerStatistics, SubjectStatistics, layer_statistics
from lrc_tl.models.fingerprint import ModelFingerprint
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.mapped_weights import say
from lrc_tl.models.packaged import cache_folder
from lrc_tl.passes.tracking import is_steered
from lrc_tl.relations.prompts import Prompt, prompts_hash

_NAMED_BY = (
    "name", "n_layers", "d_model", "d_vocab", "processing", "tokenizer", "bos", "model_class", "dtype", "device",
)  # fmt: skip
"""Fields of the fingerprint that a folder goes by; the behaviour is compared when a file is read."""


def cached_statistics(
    model: HookedModel, prompts: Sequence[Prompt], layers: Sequence[int], *, progress: bool
) -> list[LayerStatistics]:
    """Statistics at layers counted from the start: those that are kept, and the others from one pass.

    A file that is damaged or of another model with the same name is said and made anew. Under steering nothing is
    kept, nor taken from what is kept.
    """
    if is_steered(model):
        return layer_statistics(model, prompts, layers, progress=progress)
    fingerprint = ModelFingerprint.of(model)
    folder = statistics_folder(fingerprint, prompts)
    kept = {layer: _kept(_file(folder, layer), layer, fingerprint) for layer in layers}
    missing = [layer for layer, statistics in kept.items() if statistics is None]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        for statistics in layer_statistics(model, prompts, missing, progress=progress):
            SubjectStatistics([statistics]).save(_file(folder, statistics.layer))
            kept[statistics.layer] = statistics
    return [replace(statistics, fingerprint=fingerprint) for statistics in kept.values() if statistics is not None]


def statistics_folder(fingerprint: ModelFingerprint, prompts: Sequence[Prompt]) -> Path:
    """Where the statistics of a model and a background are kept."""
    named = [str(getattr(fingerprint, field)) for field in _NAMED_BY]
    digest = hashlib.sha256("|".join([*named, prompts_hash(prompts)]).encode()).hexdigest()[:16]
    return cache_folder() / "statistics" / f"{fingerprint.name}-{digest}"


def _file(folder: Path, layer: int) -> Path:
    return folder / f"layer-{layer}.safetensors"


def _kept(path: Path, layer: int, fingerprint: ModelFingerprint) -> LayerStatistics | None:
    if not path.exists():
        return None
    try:
        statistics = SubjectStatistics.load(path)
    except ArtifactError as error:
        say(f"{error}; the statistics are made anew")
        return None
    if layer not in statistics or not fingerprint.is_same_model(statistics.fingerprint):
        say(f"{path}: of another model with the same name; the statistics are made anew")
        return None
    return statistics[layer]
