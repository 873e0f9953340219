"""Records of a sweep that was never run, and folders of them as shards leave them."""

import random

from tiny_directions import FINGERPRINT

import lrc_tl as lrc
from lrc_tl.experiments.record import AskedEdit, AskedPrompt
from lrc_tl.experiments.sweep_cells import sweep_cells
from lrc_tl.experiments.sweep_record import CellRecord, EditScores, ShotsRecord, SweepRecord
from lrc_tl.experiments.sweep_store import SweepStore

SETTINGS = lrc.SweepSettings(
    methods=("mean", "svm"), subject_layers=(0, 1), betas=(0.1, 0.5), seeds=(1, 2), shots=0, validation_edits=3
)
CELLS = sweep_cells(SETTINGS, 3)
RELATIONS = ("city in country", "日本", "x y")
UNITS = tuple((relation, seed) for relation in RELATIONS for seed in SETTINGS.seeds)
MODEL = FINGERPRINT.to_dict()


def unit_record(relation, seed, cells=CELLS, *, n=4):
    """What a unit measured: the same whenever it is asked for."""
    subjects = [(f"{relation} {number}", "a" if number % 2 else "b") for number in range(n)]
    prompts = tuple(AskedPrompt(f"{subject} is", subject, name) for subject, name in subjects)
    edits = tuple(AskedEdit(subject, name, "c") for subject, name in subjects)
    return SweepRecord(
        relation=relation,
        seed=seed,
        n_facts=2 * n,
        test_prompts=prompts,
        validation_prompts=prompts[:3],
        by_shots=(ShotsRecord(shots=0, n_known_train=n, edits=edits, validation_edits=edits[:3]),),
        cells=tuple(_cell_record(relation, seed, cell, n) for cell in cells),
        seconds={"fit": 1.0},
    )


def _cell_record(relation, seed, cell, n):
    draw = random.Random(f"{relation} {seed} {cell.name}")

    def scores(count, beta):
        success, hard = (tuple(draw.random() < 0.6 for _ in range(count)) for _ in range(2))
        return EditScores(beta=beta, place="all", success=success, hard_success=hard, edit_share=beta)

    def places(count):
        return {reading: tuple(draw.randrange(1, 4) for _ in range(count)) for reading in ("plain", "centred")}

    return CellRecord(
        cell=cell,
        places=places(n),
        validation_places=places(3),
        edits=tuple(scores(n, beta) for beta in SETTINGS.betas),
        validation_edits=tuple(scores(3, beta) for beta in SETTINGS.betas),
    )


def write_shard(folder, records):
    """The folder that a run of these units leaves behind."""
    store = SweepStore(folder=folder, settings=SETTINGS, model=MODEL)
    with store.open():
        for record in records:
            store.write(record, content=f"facts of {record.relation}", seconds=1.0)
        store.write_head(list(dict.fromkeys(record.relation for record in records)), asked={})
    return folder
