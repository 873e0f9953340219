"""Parts of a sweep or a benchmark put together: in any order, however they were divided, the same result."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_units import CELLS, SETTINGS, UNITS, unit_record, write_shard
from test_protocol_result import RECORDS, RESULT
from tiny_directions import FINGERPRINT
from tiny_sweep import assert_same_rows

import lrc_tl as lrc
from lrc_tl.experiments.resuming import StoredRecords
from lrc_tl.experiments.sweep_merge import merge_sweeps
from lrc_tl.experiments.sweep_result import SweepResult
from lrc_tl.lre.joining import combined

FEW = settings(max_examples=12)  # each writes a few dozen files
ORDERS = st.randoms(use_true_random=False)
PARTS = tuple((unit, cell) for unit in UNITS for cell in CELLS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = write_shard(tmp_path_factory.mktemp("whole"), [unit_record(*unit) for unit in UNITS])
    return SweepResult.load(folder)


@FEW
@given(shards=st.lists(st.integers(0, 3), min_size=len(PARTS), max_size=len(PARTS)), order=ORDERS)
def test_shards_merge_to_the_whole_however_the_cells_were_divided_and_in_any_order(whole, shards, order):
    by_shard = {}
    for shard, ((relation, seed), cell) in zip(shards, PARTS, strict=True):
        by_shard.setdefault(shard, {}).setdefault((relation, seed), []).append(cell)
    with tempfile.TemporaryDirectory() as place:
        folders = []
        for shard, units in by_shard.items():
            records = [unit_record(*unit, cells) for unit, cells in units.items()]
            order.shuffle(records)
            folders.append(write_shard(Path(place) / f"shard {shard}", records))
        order.shuffle(folders)
        merged = merge_sweeps(folders, out=Path(place) / "merged")
        assert_same_rows(merged, whole)
        with pytest.raises(lrc.errors.ResumeError, match="holds results already"):
            merge_sweeps(folders, out=Path(place) / "merged")
        again = shutil.copytree(folders[0], Path(place) / "again")
        with pytest.raises(lrc.errors.ResumeError, match="which another record has too"):
            merge_sweeps([*folders, again], out=Path(place) / "double")


@FEW
@given(order=ORDERS, n_parts=st.integers(1, 4))
def test_a_benchmarks_records_give_the_same_tables_whatever_the_order_they_were_stored_in(order, n_parts):
    records = list(RECORDS)
    order.shuffle(records)
    options = {"settings": {"methods": ["lrc", "mean"]}, "fingerprint": FINGERPRINT}
    with tempfile.TemporaryDirectory() as place:
        together = StoredRecords(folder=Path(place) / "together", **options)
        for part in range(n_parts):
            stored = StoredRecords(folder=Path(place) / str(part), **options)
            with stored.open(), together.open():
                for record in records[part::n_parts]:
                    name = f"{record.relation} seed {record.seed}"
                    stored.write(name, record, content=[], seconds=1.0)
                    shutil.copy(stored.path(name), together.path(name))
        loaded = lrc.ProtocolResult.load(together.folder)
        assert loaded.to_dict() == RESULT.to_dict()
        pd.testing.assert_frame_equal(loaded.to_frame(), RESULT.to_frame())


@given(order=ORDERS, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 2**32))
def test_lres_of_parts_combine_to_their_mean_over_prompts_in_any_order(order, sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    lres = [
        lrc.LinearRelationalEmbedding(
            weight=torch.randn(5, 4, generator=generator, dtype=torch.float64),
            bias=torch.randn(5, generator=generator, dtype=torch.float64),
            subject_layer=0,
            object_layer=2,
            object_aggregation="mean",
            n_prompts=size,
            prompts_hash=f"{number:064x}",
            relation="r",
            fingerprint=FINGERPRINT,
        )
        for number, size in enumerate(sizes)
    ]
    expected = sum(lre.weight * size for lre, size in zip(lres, sizes, strict=True)) / sum(sizes)
    order.shuffle(lres)
    joined = combined(lres)
    assert joined.n_prompts == sum(sizes)
    torch.testing.assert_close(joined.weight, expected)
    # Together and then with the rest, or all at once.
    if len(lres) > 2:
        in_steps = combined([combined(lres[:2]), *lres[2:]])
        torch.testing.assert_close(in_steps.weight, joined.weight)
        torch.testing.assert_close(in_steps.bias, joined.bias)


def test_parts_of_other_settings_do_not_merge(tmp_path):
    first = write_shard(tmp_path / "first", [unit_record(*UNITS[0])])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("made_up_units.SETTINGS", replace(SETTINGS, betas=(0.1,)))
        second = write_shard(tmp_path / "second", [unit_record(*UNITS[1])])
    with pytest.raises(lrc.errors.ResumeError, match="belong to different sweeps"):
        merge_sweeps([first, second], out=tmp_path / "out")


def test_nothing_to_merge_a_part_without_units_and_a_damaged_head_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no folders were given to merge; give at least one"):
        merge_sweeps([], out=tmp_path / "out")
    write_shard(tmp_path / "part", [unit_record(*UNITS[0])])
    for content in ("[]", "{}", '{"settings": {}, "model": null}', '{"settings"'):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / "sweep.json").write_text(content, encoding="utf-8")
        with pytest.raises(
            lrc.errors.ResumeError, match=r"sweep.json is damaged \(.*; run the sweep again with resume"
        ):
            merge_sweeps([tmp_path / "part", tmp_path / "bad"], out=tmp_path / "out")
    shutil.copy(tmp_path / "part" / "sweep.json", tmp_path / "bad" / "sweep.json")
    with pytest.raises(
        lrc.errors.ResumeError, match="bad holds no finished unit; leave it out, or finish it first"
    ):
        merge_sweeps([tmp_path / "part", tmp_path / "bad"], out=tmp_path / "out")
    with pytest.raises(lrc.errors.ResumeError, match="bad holds no results of a sweep; give the folder"):
        SweepResult.load(tmp_path / "bad")
    assert not (tmp_path / "out").exists()
