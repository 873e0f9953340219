"""Statistics of subjects for a benchmark's dual directions: fitted once, less each relation's test subjects."""

from collections.abc import Sequence

from lrc_tl.lre.subject_statistics import SubjectStatistics
from lrc_tl.models.hooked_model import HookedModel

_Key = tuple[int | None, tuple[int, ...]]


class Backgrounds:
    """Statistics of the built-in subjects, for all relations and seeds of a run.

    Those of the model are also kept on disk (`SubjectStatistics.fit`), those of random weights for this run alone.
    """

    def __init__(self) -> None:
        self._fitted: dict[_Key, SubjectStatistics] = {}

    def at(
        self,
        model: HookedModel,
        layers: Sequence[int],
        *,
        without: Sequence[str],
        random_seed: int | None = None,
    ) -> SubjectStatistics:
        """Statistics at these layers as if the subjects `without` had never been counted.

        `random_seed` says that the model has random weights at the moment, and which.

        Raises:
            ValueError: too few samples are left.
        """
        key = (random_seed, tuple(layers))
        if key not in self._fitted:
            self._fitted[key] = SubjectStatistics.fit(
                model, layers=layers, cache=random_seed is None, progress=False
            )
        return self._fitted[key].without(without)
