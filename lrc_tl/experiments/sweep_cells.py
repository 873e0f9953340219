"""The cells of a sweep: every method at every setting that matters to it. Needs no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.experiments.sweep_settings import SweepSettings
from lrc_tl.methods.method import METHODS, MethodVariant, method_variants


@numbers_checked
@dataclass(frozen=True, kw_only=True)
class SweepCell:
    """A method at one setting; None where the method has no such thing. The columns of a sweep's rows."""

    method: str
    subject_layer: int
    object_layer: int | None = None
    rank: int | None = None
    ridge: float | None = None
    noise: float | None = None
    """None for dual directions too, where it is chosen on training facts."""
    n_lre_prompts: int | None = None
    """At most; fewer where the model knows fewer."""
    shots: int

    @property
    def name(self) -> str:
        """For eyes, and as a key: `lrc@subject_layer=9,object_layer=12,rank=64,n_lre_prompts=20,shots=4`."""
        given = {name: value for name, value in self.to_dict().items() if value is not None and name != "method"}
        return f"{self.method}@{','.join(f'{name}={value:g}' for name, value in given.items())}"

    def to_dict(self) -> dict[str, Any]:
        """The columns by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def variant(self) -> MethodVariant:
        """The variant that makes its directions, by the cell's name."""
        return MethodVariant(
            name=self.name,
            method=METHODS[self.method],
            subject_layer=self.subject_layer,
            object_layer=self.object_layer,
            rank=self.rank,
            ridge=self.ridge or 0.0,
            noise=self.noise,
        )


CELL_COLUMNS = tuple(field.name for field in fields(SweepCell))


def sweep_cells(settings: SweepSettings, n_layers: int) -> tuple[SweepCell, ...]:
    """Every cell once; layers count from the start.

    Raises:
        ValueError: no object layer of a method lies above a subject layer.
    """
    cells: list[SweepCell] = []
    for name in settings.methods:
        method = METHODS[name]
        variants = method_variants(
            [name],
            n_layers=n_layers,
            subject_layers=settings.subject_layers,
            object_layers=settings.object_layers,
            ranks=settings.ranks,
        )
        ridges: Sequence[float | None] = (None,)
        if method.inverse == "ridge":
            ridges = settings.ridges or (method.ridge,)
        # A method with a noise of its own keeps it.
        swept = settings.noises if method.is_dual and method.noise is None else ()
        noises: Sequence[float | None] = swept or (None,)
        prompts: Sequence[int | None] = (None,) if method.is_baseline else settings.max_lre_prompts
        cells += [
            SweepCell(
                method=name,
                subject_layer=variant.subject_layer,
                object_layer=variant.object_layer,
                rank=variant.rank,
                ridge=ridge,
                noise=noise,
                n_lre_prompts=n,
                shots=shots,
            )
            for shots in settings.shots
            for n in prompts
            for variant in variants
            for ridge in ridges
            for noise in noises
        ]
    return tuple(cells)


def with_layers_from_the_start(settings: SweepSettings, n_layers: int) -> SweepSettings:
    """The settings with negative layers counted from the start.

    Raises:
        ValueError: a layer outside the model, or two that are one.
    """

    def counted(layers: Iterable[int], name: str) -> tuple[int, ...]:
        for layer in layers:
            if not -n_layers <= layer < n_layers:
                raise ValueError(f"{name}: there is no layer {layer}; this model has layers 0 to {n_layers - 1}")
        return tuple(layer % n_layers for layer in layers)

    return replace(
        settings,
        subject_layers=counted(settings.subject_layers, "subject_layers"),
        object_layers=counted(settings.object_layers, "object_layers"),
    )
