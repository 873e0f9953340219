"""The statistics of subjects that dual directions rest on: those given, or those of the built-in subjects."""

from collections.abc import Sequence

from lrc_tl.lre.subject_statistics import SubjectStatistics
from lrc_tl.methods.method import MethodVariant
from lrc_tl.methods.settings import FitSettings
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.relations.prompts import Prompt
from lrc_tl.relations.relation_files import built_in_relations, load_relation
from lrc_tl.relations.words import caseless


def dual_layers(variants: Sequence[MethodVariant]) -> list[int]:
    """The subject layers at which variants need statistics; none where no variant is dual."""
    return sorted({variant.subject_layer for variant in variants if variant.method.is_dual})


def require_background(model: HookedModel, variants: Sequence[MethodVariant], settings: FitSettings) -> None:
    """Check a background that is given for dual directions.

    Raises:
        TypeError: it is something else than `SubjectStatistics`.
        ValueError: it has no statistics of a subject layer.
        FingerprintMismatch: it was made on another model.
    """
    background, layers = settings.background, dual_layers(variants)
    if background is None or not layers:
        return
    if not isinstance(background, SubjectStatistics):
        raise TypeError(
            f"background is of the type {type(background).__name__}; give SubjectStatistics.fit(model), which "
            "takes prompts or texts of your own as background=..."
        )
    if missing := [layer for layer in layers if layer not in background]:
        raise ValueError(
            f"the background has statistics of the layers {list(background)}, and not of {missing}; fit it with "
            f"SubjectStatistics.fit(model, layers={layers})"
        )
    background.require_model(model)


def background_for(
    model: HookedModel,
    variants: Sequence[MethodVariant],
    prompts: Sequence[Prompt],
    settings: FitSettings,
    *,
    progress: bool,
) -> SubjectStatistics | None:
    """The background given, or that of the built-in subjects without `held_out_subjects`; None: none is needed.

    Raises:
        ValueError: fewer than 50 samples are left, or what `require_background` refuses.
    """
    require_background(model, variants, settings)
    layers = dual_layers(variants)
    if settings.background is not None or not layers:
        return settings.background
    statistics = SubjectStatistics.fit(model, layers=layers, progress=progress)
    return statistics.without(held_out_subjects(prompts))


def held_out_subjects(prompts: Sequence[Prompt]) -> list[str]:
    """Subjects of built-in relations with the prompts' names of relations that are not among the prompts.

    Where the prompts are of the training half of such a relation, these are its test subjects.
    """
    used = {caseless(prompt.subject.strip()) for prompt in prompts}
    built_in = set(built_in_relations())
    names = dict.fromkeys(prompt.relation for prompt in prompts if prompt.relation in built_in)
    subjects = [fact.subject for name in names for fact in load_relation(name).facts]
    return [subject for subject in subjects if caseless(subject) not in used]
