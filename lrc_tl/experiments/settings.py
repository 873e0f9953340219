"""The settings of a benchmark, which all of its relations and seeds share."""

from dataclasses import dataclass

from lrc_tl.lre.fit_settings import SolverName
from lrc_tl.methods.method import MethodVariant, method_variants


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """What the result of one relation and seed depends on, beside these two and the model."""

    methods: tuple[str, ...]
    subject_layers: tuple[int, ...]
    object_layers: tuple[int, ...]
    ranks: tuple[int, ...]
    betas: tuple[float, ...] | None
    max_lre_prompts: int
    max_facts: int | None
    shots: int
    select: bool
    single_layer: bool = False
    """Also edit the subject layer alone."""
    random_model: bool = False
    """Also the accuracy of every method made in the model with random weights."""
    n_side_effects: int = 0
    """(edit, statement) pairs for the side effects of each kind."""
    fit_method: SolverName = "exact"
    """How the LREs of the methods that have one are fitted."""
    split_seed: int | None = None
    """Split by this seed whatever that of the run, before facts are drawn; None: by the run's, afterwards."""

    def variants(self, n_layers: int) -> tuple[MethodVariant, ...]:
        """Every method at every layer and rank."""
        return method_variants(
            self.methods,
            n_layers=n_layers,
            subject_layers=self.subject_layers,
            object_layers=self.object_layers,
            ranks=self.ranks,
        )
