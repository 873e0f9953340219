"""One unit of a sweep: some cells on one relation and seed, which share all that they can."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

from lrc_tl.errors import RelationError
from lrc_tl.evaluation.causality import Edit
from lrc_tl.evaluation.classification import classify_activations
from lrc_tl.evaluation.collateral import EditedStatement
from lrc_tl.evaluation.faithfulness import lre_faithfulness
from lrc_tl.evaluation.summary import swap_differences
from lrc_tl.experiments.backgrounds import Backgrounds
from lrc_tl.experiments.readings import readings
from lrc_tl.experiments.record import AskedEdit, AskedPrompt
from lrc_tl.experiments.relation_prompts import (
    LeftOut,
    known_test_prompts,
    known_training_prompts,
    split_facts,
    training_prompts,
)
from lrc_tl.experiments.sweep_cells import SweepCell
from lrc_tl.experiments.sweep_metrics import OF_EDITS, READINGS
from lrc_tl.experiments.sweep_record import (
    CellRecord,
    EditScores,
    ShotsRecord,
    SweepRecord,
    left_out_cell,
    left_out_record,
)
from lrc_tl.experiments.sweep_settings import SweepSettings
from lrc_tl.experiments.unit import Unit
from lrc_tl.methods.fitting import FittedMethod
from lrc_tl.methods.training_activations import training_activations, training_residuals
from lrc_tl.models.fingerprint import fingerprints_once
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.known_prompts import KnownPrompts
from lrc_tl.passes.residuals import PromptResiduals
from lrc_tl.relations.prompts import Prompt, tokens_once
from lrc_tl.relations.relation import Relation
from lrc_tl.relations.sampling import permuted_objects

MAX_SHIFTS = 2**25
"""Numbers in the edits of one call: more cells than fit run in several calls."""
_Places = dict[str, tuple[int, ...]]


@tokens_once()
@fingerprints_once()
def run_unit(
    model: HookedModel,
    relation: Relation,
    seed: int,
    cells: Sequence[SweepCell],
    settings: SweepSettings,
    *,
    others: Sequence[Relation],
    backgrounds: Backgrounds,
) -> SweepRecord:
    """What was measured for one relation and seed, or the reason why it is left out.

    Known prompts, activations, one reverse pass per object layer and number of LRE prompts, one decomposition of
    each W and all edits of a place are shared by the cells.
    """
    try:
        return _SweepUnit(model, relation, seed, settings, others, backgrounds).record(cells)
    except LeftOut as reason:
        return left_out_record(relation.name, seed, str(reason), cells)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Subjects:
    """Residuals at the last subject token of zero-shot prompts, by layer, one row per prompt."""

    plain: Mapping[int, Tensor]
    test: Mapping[int, Tensor]
    validation: Mapping[int, Tensor]


class _SweepUnit:
    """The steps of a unit; what does not depend on the examples in training prompts is done once."""

    def __init__(
        self,
        model: HookedModel,
        relation: Relation,
        seed: int,
        settings: SweepSettings,
        others: Sequence[Relation],
        backgrounds: Backgrounds,
    ) -> None:
        self.model, self.relation, self.seed, self.settings = model, relation, seed, settings
        shared = settings.of_shots(settings.shots[0])
        self.unit = Unit(model, relation, seed, settings=shared, others=others, backgrounds=backgrounds)
        self.train, self.test = split_facts(relation, seed, shared)
        self.n_facts = len(self.train.facts) + len(self.test.facts)
        self.train, self.held_out = with_validation(self.train, seed, settings.validation)
        self.unit.held_out = tuple(
            fact.subject for part in (self.test, self.held_out) if part for fact in part.facts
        )

    def record(self, cells: Sequence[SweepCell]) -> SweepRecord:
        """The measurements; raises LeftOut where there is nothing to evaluate."""
        subjects = PromptResiduals(self.model, subject_layers=dict.fromkeys(cell.subject_layer for cell in cells))
        with self.unit.clock("filter"):
            self.unseen = known_test_prompts(self.model, self.test, self.seed, residuals=subjects)
            self.validation = KnownPrompts(prompts=(), dropped=())
            if self.held_out:
                self.validation = known_test_prompts(
                    self.model, self.held_out, self.seed, least=0, residuals=subjects
                )
        self.plain = tuple(self.train.prompts(seed=self.seed))
        with self.unit.clock("activations"):
            self.subjects = _Subjects(
                plain=_by_layer(subjects, self.plain),
                test=_by_layer(subjects, self.unseen.prompts),
                validation=_by_layer(subjects, self.validation.prompts),
            )
        records: dict[SweepCell, CellRecord] = {}
        by_shots = []
        reasons = []
        for shots in dict.fromkeys(cell.shots for cell in cells):
            these = [cell for cell in cells if cell.shots == shots]
            try:
                shared, measured = self._with_shots(shots, these)
            except LeftOut as reason:
                reasons.append(str(reason))
                measured = {cell: left_out_cell(cell, str(reason)) for cell in these}
            else:
                by_shots.append(shared)
            records |= measured
        if not by_shots:
            raise LeftOut(reasons[0])
        return SweepRecord(
            relation=self.relation.name,
            seed=self.seed,
            n_facts=self.n_facts,
            test_prompts=_asked(self.unseen.prompts),
            validation_prompts=_asked(self.validation.prompts),
            by_shots=tuple(by_shots),
            cells=tuple(records[cell] for cell in cells),
            seconds=self.unit.seconds,
        )

    def _with_shots(
        self, shots: int, cells: Sequence[SweepCell]
    ) -> tuple[ShotsRecord, dict[SweepCell, CellRecord]]:
        with self.unit.clock("filter"):
            prompts = training_prompts(self.train, self.seed, shots=shots)
            residuals = training_residuals(self.model, [cell.variant for cell in cells])
            known = known_training_prompts(
                self.model, self.train, prompts, self.seed, shots=shots, residuals=residuals
            )
        unfit: dict[str, str] = {}
        fitted = self._fitted(cells, known, residuals, unfit)
        made = [cell for cell in cells if cell.name in fitted]
        records = {cell: left_out_cell(cell, unfit[cell.name]) for cell in cells if cell.name in unfit}
        with self.unit.clock("accuracy"):
            records |= {cell: self._read(cell, fitted[cell.name], known) for cell in made}
        faithful = self._faithful(made, fitted)
        records |= {cell: replace(records[cell], faithful=outcomes) for cell, outcomes in faithful.items()}
        settings, objects = self.settings, {prompt.object for prompt in known.prompts}
        shared = ShotsRecord(shots=shots, n_known_train=len(known.prompts), edits=(), validation_edits=())
        if not made or not {*settings.metrics} & {*OF_EDITS}:
            return shared, records
        edits = _drawn(self.unit.edits(self.unseen.prompts, objects), settings.max_edits, self.seed)
        validation = self.unit.edits(self.validation.prompts, objects)
        validation = _drawn(validation, settings.validation_edits, self.seed)
        pairs: list[Sequence[EditedStatement]] = [(), ()]
        if edits and settings.n_side_effects and {"kl_elsewhere", "kl_same_subject"} & {*settings.metrics}:
            with self.unit.clock("side effects"):
                pairs = list(self.unit.statements(edits, n=settings.n_side_effects))
        concepts = {cell: fitted[cell.name].concepts for cell in made}
        if edits:
            differences = {cell: swap_differences(concepts[cell], edits) for cell in made}
            scores = self._scores(edits, differences, *pairs)
            records |= {cell: replace(records[cell], edits=scores[cell]) for cell in made}
        of_validation: Sequence[EditedStatement] = ()
        if validation:
            if settings.n_side_effects and "kl_elsewhere" in settings.metrics:
                with self.unit.clock("side effects"):
                    of_validation, _ = self.unit.statements(validation, n=settings.n_side_effects)
            differences = {cell: swap_differences(concepts[cell], validation) for cell in made}
            scores = self._scores(validation, differences, of_validation, ())
            records |= {cell: replace(records[cell], validation_edits=scores[cell]) for cell in made}
        shared = replace(
            shared,
            edits=_asked_edits(edits),
            validation_edits=_asked_edits(validation),
            n_elsewhere=_counts(edits, pairs[0]),
            n_same_subject=_counts(edits, pairs[1]),
            n_validation_elsewhere=_counts(validation, of_validation),
        )
        return shared, records

    def _fitted(
        self,
        cells: Sequence[SweepCell],
        known: KnownPrompts,
        residuals: PromptResiduals,
        unfit: dict[str, str],
    ) -> dict[str, FittedMethod]:
        variants = [cell.variant for cell in cells]
        with self.unit.clock("activations"):
            training = training_activations(self.model, variants, known.prompts, residuals=residuals)
        fitted: dict[str, FittedMethod] = {}
        with self.unit.clock("fit"):
            # Baselines have no number of LRE prompts, and go with the first.
            numbers = list(dict.fromkeys(cell.n_lre_prompts for cell in cells if cell.n_lre_prompts))
            numbers = numbers or [self.settings.max_lre_prompts[0]]
            for place, number in enumerate(numbers):
                these = [
                    cell.variant
                    for cell in cells
                    if cell.n_lre_prompts == number or (cell.n_lre_prompts is None and place == 0)
                ]
                fitted |= self.unit.fitted(these, known, training, max_lre_prompts=number, unfit=unfit)
        return fitted

    def _read(self, cell: SweepCell, fitted: FittedMethod, known: KnownPrompts) -> CellRecord:
        """The places of the right objects, by reading; no edits yet."""
        concepts, layer = fitted.concepts, cell.subject_layer
        n_test = len(self.unseen.prompts)
        acts = torch.cat([part[layer] for part in (self.subjects.test, self.subjects.validation) if part])
        actual = [prompt.object for prompt in (*self.unseen.prompts, *self.validation.prompts)]
        read = readings(concepts, acts, actual, plain=self.subjects.plain[layer], plain_prompts=self.plain)
        all_places = {
            reading: classification.places
            for reading, classification in zip(
                READINGS, (read.as_it_is, read.centred, read.calibrated), strict=True
            )
        }
        control = None
        if "selectivity" in self.settings.metrics:
            shuffled = permuted_objects([prompt.object for prompt in known.prompts], seed=self.seed)
            test, objects = self.subjects.test[layer], [prompt.object for prompt in self.unseen.prompts]
            control = classify_activations(fitted.make(shuffled), test, objects).places
        return CellRecord(
            cell=cell,
            n_lre_prompts=None if cell.n_lre_prompts is None else min(cell.n_lre_prompts, len(known.prompts)),
            places={reading: places[:n_test] for reading, places in all_places.items()},
            validation_places={reading: places[n_test:] for reading, places in all_places.items()},
            control_places=control,
            chosen_noise=_chosen_noise(cell, fitted),
        )

    def _faithful(
        self, cells: Sequence[SweepCell], fitted: Mapping[str, FittedMethod]
    ) -> dict[SweepCell, tuple[bool, ...]]:
        """Whether the LRE says the model's next token, for cells whose LRE can; once per LRE."""
        if "faithfulness" not in self.settings.metrics:
            return {}
        last = int(self.model.cfg.n_layers) - 1
        outcomes: dict[int, tuple[bool, ...]] = {}
        faithful: dict[SweepCell, tuple[bool, ...]] = {}
        for cell in cells:
            lre = fitted[cell.name].lre
            if lre is None or lre.object_layer != last or lre.object_aggregation != "first_token":
                continue
            if id(lre) not in outcomes:
                with self.unit.clock("faithfulness"):
                    outcomes[id(lre)] = lre_faithfulness(self.model, lre, self.unseen.prompts).same
            faithful[cell] = outcomes[id(lre)]
        return faithful

    def _scores(
        self,
        edits: Sequence[Edit],
        differences: Mapping[SweepCell, Tensor],
        elsewhere: Sequence[EditedStatement],
        same_subject: Sequence[EditedStatement],
    ) -> dict[SweepCell, tuple[EditScores, ...]]:
        """What the edits of every cell do, for every beta and place."""
        betas, metrics = self.settings.betas, self.settings.metrics
        scores: dict[SweepCell, list[EditScores]] = defaultdict(list)
        clean: Tensor | None = None
        most = max(1, MAX_SHIFTS // (len(betas) * max(map(torch.Tensor.numel, differences.values()))))
        for place in self.settings.places:
            for layers, cells in self._layers(place, list(differences)).items():
                for start in range(0, len(cells), most):
                    these = {cell.name: differences[cell] for cell in cells[start : start + most]}
                    with self.unit.clock("causality"):
                        generated = "hard_causality" in metrics
                        curves = self.unit.curves(
                            edits, these, betas=betas, layers=layers, generated=generated, clean=clean
                        )
                    clean = next(iter(curves.values()))[0].clean
                    kl: dict[str, dict[str, tuple[float | None, ...]]] = {}
                    with self.unit.clock("side effects"):
                        for name, pairs in (("kl_elsewhere", elsewhere), ("kl_same_subject", same_subject)):
                            kl[name] = {}
                            if name in metrics and pairs:
                                effects = self.unit.effects(pairs, these, betas=betas, layers=layers)
                                kl[name] = {key: tuple(e.mean_kl for e in of) for key, of in effects.items()}
                    nothing = (None,) * len(betas)
                    for cell in cells[start : start + most]:
                        for number, result in enumerate(curves[cell.name]):
                            hard = result.generated
                            scores[cell].append(
                                EditScores(
                                    beta=result.beta,
                                    place=place,
                                    success=tuple(result.success.tolist()),
                                    hard_success=None if hard is None else tuple(hard.tolist()),
                                    edit_share=result.edit_share,
                                    kl_elsewhere=kl["kl_elsewhere"].get(cell.name, nothing)[number],
                                    kl_same_subject=kl["kl_same_subject"].get(cell.name, nothing)[number],
                                )
                            )
        return {cell: tuple(of_cell) for cell, of_cell in scores.items()}

    def _layers(self, place: str, cells: Sequence[SweepCell]) -> dict[tuple[int, ...] | None, list[SweepCell]]:
        """The layers that edits act in, with the cells whose edits do; None for all."""
        groups: dict[tuple[int, ...] | None, list[SweepCell]] = defaultdict(list)
        n_layers = int(self.model.cfg.n_layers)
        for cell in cells:
            layers = {
                "all": None,
                "from": tuple(range(cell.subject_layer, n_layers)),
                "subject": (cell.subject_layer,),
            }
            groups[layers[place]].append(cell)
        return groups


def _by_layer(subjects: PromptResiduals, prompts: Sequence[Prompt]) -> Mapping[int, Tensor]:
    """The subjects of the prompts, read now where no other pass has read them; none of no prompts."""
    if not prompts:
        return {}
    subjects.read(prompts)
    return {layer: subjects.of(prompts, layer, "subject") for layer in subjects.subject_layers}


def with_validation(train: Relation, seed: int, share: float) -> tuple[Relation, Relation | None]:
    """The training facts, and a share of them held out for choosing; None where no object has two."""
    if not share:
        return train, None
    try:
        return train.split(seed=seed, train_share=1 - share)
    except RelationError:
        return train, None


def _drawn(edits: Sequence[Edit], most: int | None, seed: int) -> tuple[Edit, ...]:
    """At most so many of the edits, drawn with the seed, in their order."""
    if most is None or len(edits) <= most:
        return tuple(edits)
    return tuple(edits[place] for place in sorted(Random(seed).sample(range(len(edits)), most)))


def _chosen_noise(cell: SweepCell, fitted: FittedMethod) -> float | None:
    noise = fitted.concepts.settings.get("noise") if cell.noise is None else None
    return None if noise is None else float(noise)


def _asked(prompts: Sequence[Prompt]) -> tuple[AskedPrompt, ...]:
    return tuple(AskedPrompt(prompt.text, prompt.subject, prompt.object) for prompt in prompts)


def _asked_edits(edits: Sequence[Edit]) -> tuple[AskedEdit, ...]:
    return tuple(AskedEdit(edit.prompt.subject, edit.prompt.object, edit.target) for edit in edits)


def _counts(edits: Sequence[Edit], pairs: Sequence[EditedStatement]) -> tuple[int, int]:
    """Pairs, and facts whose edits are among them."""
    facts = {(edits[number].prompt.subject, edits[number].prompt.object) for number, _ in pairs}
    return len(pairs), len(facts)
