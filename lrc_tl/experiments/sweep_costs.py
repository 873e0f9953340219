"""Upper bounds of what the units of a sweep take: texts, products with Jacobians, operations and memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from lrc_tl.experiments.relation_prompts import split_facts
from lrc_tl.experiments.sweep_cells import SweepCell
from lrc_tl.experiments.sweep_metrics import OF_EDITS, READINGS
from lrc_tl.experiments.sweep_request import UnitPlan
from lrc_tl.experiments.sweep_settings import SweepSettings
from lrc_tl.experiments.sweep_unit import with_validation
from lrc_tl.lre.costs import TextLength, decomposition_cost, dual_cost, pairs_cost
from lrc_tl.lre.fit_settings import LowRank, Sketch, sketch_for, solver_named
from lrc_tl.lre.jacobian_graph import ROWS_AT_ONCE, n_exact_passes
from lrc_tl.lre.low_rank_fit import exact_is_cheaper
from lrc_tl.lre.mlp_jacobian import pays
from lrc_tl.methods.lre_grids import joined, pairs_of
from lrc_tl.methods.method import METHODS, MethodVariant
from lrc_tl.models.sizes import ModelSizes
from lrc_tl.passes.batches import MAX_LOGIT_POSITIONS, MAX_LOGITS, MAX_TOKENS
from lrc_tl.relations.prompts import Prompt
from lrc_tl.relations.relation import Relation

CountTokens = Callable[[str], int]
Stage = str
STAGES: dict[Stage, tuple[Stage, ...]] = {
    "reading": ("filter", "activations", "statistics"),
    "fitting": ("fit", "accuracy", "faithfulness"),
    "editing": ("causality", "side effects"),
}
"""What operations are counted for, with the stages whose seconds a record holds."""
_WIDE = 4
_EDITS_OF_EACH_OBJECT = 5
_PROMPTS_MEASURED = 12
"""Of a relation, to find how long its prompts are."""


@dataclass(frozen=True, kw_only=True)
class UnitCost:
    """Floating-point operations of one unit by what they are for, if the model knows every fact."""

    reading: int = 0
    """Passes that find what is known and read activations."""
    fitting: int = 0
    """LREs and their decompositions."""
    editing: int = 0
    """Passes with edits, and their statements."""

    @property
    def operations(self) -> int:
        """All of them."""
        return self.reading + self.fitting + self.editing


@dataclass(frozen=True, kw_only=True)
class _Lengths:
    """Mean tokens of a relation's prompts."""

    zero_shot: int
    few_shot: int
    after: int
    """From the last subject token on, with the object."""
    object: int


class SweepCosts:
    """What units take, with sharing and with each cell run by itself."""

    def __init__(self, settings: SweepSettings, sizes: ModelSizes, count_tokens: CountTokens) -> None:
        self.settings, self.sizes = settings, sizes
        self.n_layers, self.d_model = sizes.n_layers, sizes.d_model
        self._count_tokens = cache(count_tokens)
        self._measured: dict[tuple[str, int], _Lengths] = {}
        self.texts = self.texts_cell_by_cell = self.products = self.products_cell_by_cell = 0
        self.rows = self.lre_bytes = self.n_bytes = 0

    def add(self, unit: UnitPlan) -> UnitCost:
        """Counts a unit.

        Raises:
            LeftOut: it has too few facts.
        """
        settings = self.settings
        train, test = split_facts(unit.relation, unit.seed, settings.of_shots(settings.shots[0]))
        train, validation = with_validation(train, unit.seed, settings.validation)
        n_train, n_test = len(train.facts), len(test.facts)
        n_validation = len(validation.facts) if validation else 0
        n_templates = max(1, len(unit.relation.zero_shot_templates or unit.relation.templates))
        asked = (n_test + n_validation) * n_templates  # to find what is known
        edits = self._edits(test, settings.max_edits)
        validation_edits = self._edits(validation, settings.validation_edits) if validation else 0
        # The passes that find what is known read it too; zero-shot training prompts are only read.
        self.texts += asked + n_train
        self.texts_cell_by_cell += len(unit.cells) * (asked + n_train)
        lengths = self._lengths(unit.relation, settings.shots[0])
        reading = asked * self._pass(lengths.zero_shot + lengths.object, lengths.object)
        reading += n_train * self._pass(lengths.zero_shot, 0)
        fitting = editing = 0
        for shots in {cell.shots for cell in unit.cells}:
            cells = [cell for cell in unit.cells if cell.shots == shots]
            lengths = self._lengths(unit.relation, shots)
            dual = [cell for cell in cells if METHODS[cell.method].is_dual]  # these read prompts without examples
            self.texts += n_train * (1 + bool(dual))
            self.texts_cell_by_cell += n_train * (len(cells) + len(dual))
            reading += n_train * self._pass(lengths.few_shot + lengths.object, lengths.object)
            reading += n_train * self._pass(lengths.zero_shot, 0) * bool(dual)
            fitting += self._fits(cells, n_train, lengths)
            # Edits share what lies before the subject and the unedited run; their texts are the same either way.
            edited = self._edited_texts(edits, validation_edits)
            self.texts += len(cells) * edited + edits + validation_edits
            self.texts_cell_by_cell += len(cells) * (edited + edits + validation_edits)
            editing += (len(cells) * edited + edits + validation_edits) * self._edited_pass(lengths)
        self.rows += len(unit.cells) * self._rows(edits, validation_edits, n_validation)
        # The noise that was chosen, and faithfulness where the LRE has one.
        self.rows += sum(METHODS[cell.method].is_dual and cell.noise is None for cell in unit.cells)
        if "faithfulness" in settings.metrics:
            self.rows += sum(cell.object_layer == self.n_layers - 1 for cell in unit.cells)
        self.n_bytes = max(self.n_bytes, self.lre_bytes, self._bytes_of_passes())
        return UnitCost(reading=reading, fitting=fitting, editing=editing)

    def _fits(self, cells: Sequence[SweepCell], n_train: int, lengths: _Lengths) -> int:
        """Operations of the LREs of these cells; counts products and memory too."""
        groups: dict[int, dict[object, list[MethodVariant]]] = {}
        for cell in cells:
            if not cell.n_lre_prompts:
                continue
            parts = [part for part in cell.variant.components(self.n_layers) if part.object_layer is not None]
            for part in parts:
                group = groups.setdefault(cell.n_lre_prompts, {}).setdefault(part.method.shared_work, [])
                group.append(part)
            n_prompts = min(cell.n_lre_prompts, n_train)
            self.texts_cell_by_cell += n_prompts
            self.products_cell_by_cell += n_prompts * self.d_model * n_exact_passes(pairs_of(parts))
        decomposition, dual = decomposition_cost(self.sizes), dual_cost(self.sizes)
        fits = [
            (most, sorted({pair for key in keys for pair in pairs_of(by_work[key])}))
            for most, by_work in groups.items()
            for keys in (joined(by_work) if self.settings.solver == "exact" else [[key] for key in by_work])
        ]
        held = 3 * _WIDE * self.d_model**2 * sum(len(pairs) for _, pairs in fits)
        operations = n_bytes = 0
        for most, pairs in fits:
            n_prompts = min(most, n_train)
            self.texts += n_prompts
            self.products += n_prompts * self.d_model * n_exact_passes(pairs)
            length = TextLength(
                n_tokens=lengths.few_shot + lengths.object, n_after=lengths.after, n_objects=lengths.object
            )
            sketch = self._sketch(pairs, cells)
            cost = pairs_cost(
                self.sizes,
                [length] * n_prompts,
                pairs,
                sketch,
                n_rows=min(ROWS_AT_ONCE, self.d_model),
                n_rows_held=min(ROWS_AT_ONCE, self.d_model),
                with_mlp_jacobians=sketch is None and self._has_mlp_jacobians(pairs),
            )
            operations += cost.operations + cost.reading
            n_bytes = max(n_bytes, cost.n_bytes)
            if sketch is None:  # which gives the decomposition with the LRE
                operations += decomposition.operations * len(pairs)
        duals = sum(METHODS[cell.method].is_dual for cell in cells)
        operations += duals * dual.operations
        if fits:
            self.lre_bytes = max(self.lre_bytes, held)
            # Decompositions and duals are made while the LREs are held.
            after = held + max(decomposition.n_bytes, dual.n_bytes if duals else 0)
            self.n_bytes = max(self.n_bytes, n_bytes, after)
        return operations

    def _has_mlp_jacobians(self, pairs: Sequence[tuple[int, int]]) -> bool:
        sizes, n_rows = self.sizes, n_exact_passes(pairs) * self.d_model
        return sizes.is_hooked and pays(
            n_rows, d_model=sizes.d_model, d_mlp=sizes.d_mlp, mlp_weights=sizes.mlp_weights
        )

    def _sketch(self, pairs: Sequence[tuple[int, int]], cells: Sequence[SweepCell]) -> Sketch | None:
        solver = solver_named(self.settings.solver)
        ranks = [cell.rank for cell in cells if cell.rank] or list(self.settings.ranks)
        if not isinstance(solver, LowRank) or not ranks:
            return None
        sketch = sketch_for(LowRank(rank=max(ranks)), self.d_model, grid=len(pairs) > 1)
        return None if sketch is None or exact_is_cheaper(self.d_model, pairs, sketch) else sketch

    def _edited_pass(self, lengths: _Lengths) -> int:
        """Of an edited text with its old and its new object, and of what is said behind that where it is asked."""
        behind = self._pass(1, 1) if "hard_causality" in self.settings.metrics else 0
        return 2 * self._pass(lengths.zero_shot + lengths.object, lengths.object) + behind

    def _pass(self, n_tokens: int, n_logits: int) -> int:
        return self.sizes.pass_operations(n_tokens=n_tokens, n_logits=n_logits)

    def _bytes_of_passes(self) -> int:
        """Of one full batch."""
        n_logits = min(MAX_LOGITS // self.sizes.d_vocab, MAX_LOGIT_POSITIONS)
        return self.sizes.pass_bytes(n_tokens=MAX_TOKENS, n_logits=n_logits)

    def _lengths(self, relation: Relation, shots: int) -> _Lengths:
        if (relation.name, shots) not in self._measured:
            objects = [fact.object for fact in relation.facts[:_PROMPTS_MEASURED]]
            plain = relation.prompts(seed=0)[:_PROMPTS_MEASURED]
            shown = relation.prompts(shots=shots, seed=0)[:_PROMPTS_MEASURED] if shots else plain
            self._measured[relation.name, shots] = _Lengths(
                zero_shot=self._mean([prompt.text for prompt in plain]) + 1,
                few_shot=self._mean([prompt.text for prompt in shown]) + 1,
                after=self._mean(list(map(_after_subject, plain))) + self._mean(objects),
                object=self._mean(objects),
            )
        return self._measured[relation.name, shots]

    def _mean(self, texts: Sequence[str]) -> int:
        return max(1, round(sum(map(self._count_tokens, texts)) / max(1, len(texts))))

    def _edits(self, relation: Relation, most: int | None) -> int:
        if not {*self.settings.metrics} & {*OF_EDITS}:
            return 0
        objects = {fact.object for fact in relation.facts}
        n = len(objects) * _EDITS_OF_EACH_OBJECT if len(objects) > 1 else 0
        return n if most is None else min(n, most)

    def _edited_texts(self, edits: int, validation_edits: int) -> int:
        settings = self.settings
        kinds = len({"kl_elsewhere", "kl_same_subject"} & {*settings.metrics})
        statements = kinds * bool(edits) + ("kl_elsewhere" in settings.metrics) * bool(validation_edits)
        of_each = edits + validation_edits + statements * settings.n_side_effects
        return of_each * len(settings.betas) * len(settings.places)

    def _rows(self, edits: int, validation_edits: int, n_validation: int) -> int:
        metrics = {*self.settings.metrics}
        points = len(self.settings.betas) * len(self.settings.places)
        of_edits = 2 + len(metrics & {"hard_causality", "kl_elsewhere", "kl_same_subject"})
        of_validation = 1 + len(metrics & {"hard_causality", "kl_elsewhere"})
        rows = 2 * len(READINGS) * (2 if n_validation else 1) + ("selectivity" in metrics)
        return rows + points * (of_edits * bool(edits) + of_validation * bool(validation_edits))


def _after_subject(prompt: Prompt) -> str:
    """What follows the subject where it is named last."""
    return prompt.text.rpartition(prompt.subject)[2]
