"""What is fuzzed: for each kind of file how a whole one is made, damaged, and read."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from made_up_units import SETTINGS, UNITS, unit_record, write_shard
from mutations import as_json, damaged, edited
from safetensors.torch import save
from test_damaged_files import a_set, a_set_of_pairs, an_lre, contents, signed
from test_protocol_result import RECORDS, RESULT
from tiny_directions import FINGERPRINT

import lrc_tl as lrc
from lrc_tl.errors import ArtifactError, RelationError, ResultFileError, ResumeError
from lrc_tl.experiments.resuming import StoredRecords, read_record, record_files
from lrc_tl.experiments.sweep_cells import sweep_cells
from lrc_tl.experiments.sweep_result import SweepResult
from lrc_tl.experiments.sweep_rows import read_rows
from lrc_tl.experiments.sweep_store import HEAD, ROWS
from lrc_tl.experiments.sweep_store import RECORDS as RECORDS_FOLDER
from lrc_tl.lre.subject_statistics import LayerStatistics, SubjectStatistics
from lrc_tl.storage.json_results import _checksum
from lrc_tl.views.report_source import report_source


@dataclass(frozen=True)
class Target:
    """One kind of input."""

    make: Any
    """`make(folder)`: what `damage` starts from; the folder then holds whole files where the reader wants some."""
    damage: Any
    """`damage(whole, folder, draw)`: writes one damaged input."""
    read: Any
    """`read(folder)`: reads it, and uses what it gives."""
    errors: tuple[type[Exception], ...]
    """Ours; anything else is a defect."""
    share: int
    """Of 100,000 inputs."""


# Relations

RELATION = {
    "name": "company of product",
    "prompt_templates": ["{} is made by", "The maker of {} is"],
    "prompt_templates_zs": ["{} is a product of"],
    "properties": {"relation_type": "factual", "symmetric": False},
    "aliases": {"Apple": ["Apple Inc."]},
    "samples": [
        {"subject": subject, "object": name}
        for subject, name in (
            ("iPhone", "Apple"),
            ("iPad", "Apple"),
            ("Xbox", "Microsoft"),
            ("S\\u00e9an", "日本"),
        )
    ],
}


def damage_relation(whole, folder, draw):
    data = as_json(edited(whole, draw)) if draw.random() < 0.7 else damaged(as_json(whole), draw)
    (folder / "r.json").write_bytes(data)


def read_relation(folder):
    relation = lrc.load_relation(folder / "r.json")
    repr(relation), relation.report()
    relation.prompts(shots=1, seed=1)
    relation.save(folder / "again.json")
    assert lrc.load_relation(folder / "again.json").facts == relation.facts


# Artifacts


def statistics():
    samples = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    return SubjectStatistics(
        LayerStatistics(
            layer=layer, samples=samples, kind="subjects", sources=tuple(f"s{n}" for n in range(20)),
            source_of=torch.arange(60) % 20, fingerprint=FINGERPRINT,
        )
        for layer in (0, 1)
    )  # fmt: skip


def artifact(*makers):
    def make(folder):
        files = []
        for maker in makers:
            maker().save(folder / "a")
            files.append(((folder / "a").read_bytes(), *contents(folder / "a")))
        return files

    def damage(whole, folder, draw):
        data, document, tensors = draw.choice(whole)
        kind = draw.random()
        if kind < 0.35:
            data = damaged(data, draw)
        elif kind < 0.8:  # by someone who knows how the SHA-256 is made
            data = save(tensors, metadata={"lrc_tl": signed(edited(document, draw), tensors)})
        elif kind < 0.9:
            data = save(
                tensors, metadata={"lrc_tl": damaged(json.dumps(document).encode(), draw).decode("latin-1")}
            )
        else:
            name = draw.choice(list(tensors))
            shape = draw.choice(((), (0,), (1,), (3,), (3, 12), (12, 3), (60, 4), (0, 4), (3, 3, 3)))
            dtype = draw.choice(
                (torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.uint8)
            )
            changed = {**tensors, name: torch.full(shape, draw.choice((0, 1, 1)), dtype=dtype)}
            data = save(changed, metadata={"lrc_tl": signed(document, changed)})
        (folder / "a").write_bytes(data)

    return make, damage


def reads(cls):
    def read(folder):
        loaded = cls.load(folder / "a")
        repr(loaded)
        loaded.save(folder / "again")

    return read


def make_control_vectors(folder):
    import gguf

    vectors = {layer: torch.randn(8, generator=torch.Generator().manual_seed(layer)) for layer in (1, 2, 7)}
    lrc.write_control_vector(folder / "a", vectors, model_hint="gemma3", name="日本")
    ours = (folder / "a").read_bytes()
    writer = gguf.GGUFWriter(folder / "a", "controlvector")  # as others write it, without a hash
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", 2)
    for layer in (1, 2):
        writer.add_tensor(f"direction.{layer}", np.ones(8, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return [ours, *[(folder / "a").read_bytes()] * 3]


def damage_bytes(whole, folder, draw):
    (folder / "a").write_bytes(damaged(draw.choice(whole), draw))


def read_control_vector(folder):
    read = lrc.directions.read_control_vector(folder / "a")
    repr(read)
    assert all(bool(vector.isfinite().all()) for vector in read.vectors.values())


# Results and their parts


def resealed(document, draw):
    """An edited result file, by someone who knows how the checksum is made, or does not."""
    changed = edited(document, draw)
    if isinstance(changed, dict) and draw.random() < 0.8:
        changed.pop("checksum", None)
        changed["checksum"] = _checksum(changed)
    return as_json(changed)


def make_result(folder):
    RESULT.save(folder / "a")
    return json.loads((folder / "a").read_text(encoding="utf-8"))


def damage_result(whole, folder, draw):
    data = resealed(whole, draw) if draw.random() < 0.8 else damaged(as_json(whole), draw)
    (folder / "a").write_bytes(data)


def read_result(folder):
    lrc.ProtocolResult.load(folder / "a").to_frame()


def make_part(folder):
    stored = StoredRecords(folder=folder, settings={"methods": ["lrc", "mean"]}, fingerprint=FINGERPRINT)
    stored.write("a seed 1", RECORDS[0], content=[], seconds=1.0)
    (path,) = record_files(folder)
    return path.name, json.loads(path.read_text(encoding="utf-8"))


def damage_part(whole, folder, draw):
    name, document = whole
    data = resealed(document, draw) if draw.random() < 0.8 else damaged(as_json(document), draw)
    (folder / name).write_bytes(data)


def read_part(folder):
    for path in record_files(folder):
        repr(read_record(path).record)
    repr(lrc.ProtocolResult.load(folder))


def make_benchmark(folder):
    head = {
        "schema": {"name": "lrc_tl.benchmark", "version": 1}, "lrc_tl": "0", "model": FINGERPRINT.to_dict(),
        "settings": {"methods": ["lrc"], "command": "lrc-tl benchmark"}, "seconds": 1.0, "peak_rss_bytes": 1,
    }  # fmt: skip
    return json.loads(json.dumps({**head, **RESULT.to_dict()}))


def read_report(folder):
    report_source(folder / "a")


# Sweeps


def make_sweep(folder):
    write_shard(folder, [unit_record(*unit, n=3) for unit in UNITS[:2]])
    records = {
        path.name: json.loads(path.read_text(encoding="utf-8")) for path in record_files(folder / RECORDS_FOLDER)
    }
    rows = {path.name: path.read_bytes() for path in sorted((folder / ROWS).iterdir())}
    return records, rows, json.loads((folder / HEAD).read_text(encoding="utf-8"))


def damage_sweep(whole, folder, draw):
    """Of a whole folder one file."""
    records, _, head = whole
    for name, document in records.items():
        (folder / RECORDS_FOLDER / name).write_bytes(as_json(document))
    (folder / HEAD).write_bytes(as_json(head))
    if draw.random() < 0.3:
        data = as_json(edited(head, draw)) if draw.random() < 0.8 else damaged(as_json(head), draw)
        (folder / HEAD).write_bytes(data)
    else:
        name = draw.choice(list(records))
        data = resealed(records[name], draw) if draw.random() < 0.8 else damaged(as_json(records[name]), draw)
        (folder / RECORDS_FOLDER / name).write_bytes(data)


def read_sweep(folder):
    result = SweepResult.load(folder)
    repr(result), result.left_out, result.seconds


def damage_rows(whole, folder, draw):
    _, rows, _ = whole
    data = draw.choice(list(rows.values()))
    if draw.random() < 0.8:
        (folder / "a").write_bytes(damaged(data, draw))
        return
    table = pq.read_table(pa.BufferReader(data))
    name = draw.choice(table.schema.names)
    place = table.schema.get_field_index(name)
    value = draw.choice((None, True, 0, -1, 2**31, 2**62, 0.5, float("nan"), "", "x", b"\xff", [1], {"a": 1}))
    column = pa.array([value] * len(table))
    changed = table.set_column(place, name, column)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), folder / "a")


def read_parquet(folder):
    frame = read_rows([folder / "a"])
    frame.describe()


def make_settings(folder):
    shared = json.loads(json.dumps(SETTINGS.to_dict()))
    richer = replace(SETTINGS, methods=("lrc", "lrc-map", "svm"), object_layers=2, ranks=(2, 4), noises=(0.1,))
    return [shared, json.loads(json.dumps(richer.to_dict()))]


def damage_settings(whole, folder, draw):
    (folder / "a").write_bytes(as_json(edited(draw.choice(whole), draw)))


def read_settings(folder):
    settings = lrc.SweepSettings.from_dict(json.loads((folder / "a").read_bytes()))
    repr(settings), settings.shared()
    assert len(sweep_cells(settings, 12)) < 10_000


_ARTIFACTS, _RESULTS = (ArtifactError,), (ResumeError, ResultFileError)
TARGETS = {
    "relation JSON": Target(lambda folder: RELATION, damage_relation, read_relation, (RelationError,), 25_000),
    "concept sets": Target(*artifact(a_set, a_set_of_pairs), reads(lrc.ConceptSet), _ARTIFACTS, 16_000),
    "LREs": Target(*artifact(an_lre), reads(lrc.LinearRelationalEmbedding), _ARTIFACTS, 9_000),
    "subject statistics": Target(*artifact(statistics), reads(SubjectStatistics), _ARTIFACTS, 5_000),
    "control vectors (GGUF)": Target(make_control_vectors, damage_bytes, read_control_vector, _ARTIFACTS, 14_000),
    "benchmark results": Target(make_result, damage_result, read_result, _RESULTS, 6_000),
    "benchmark parts": Target(make_part, damage_part, read_part, _RESULTS, 7_000),
    "benchmark JSON, by lrc-tl report": Target(
        make_benchmark, damage_result, read_report, (ArtifactError, *_RESULTS), 1_000
    ),
    "sweep folders": Target(make_sweep, damage_sweep, read_sweep, (ResumeError, ValueError), 4_000),
    "sweep rows (Parquet)": Target(make_sweep, damage_rows, read_parquet, (ResumeError,), 5_000),
    "sweep settings and their cells": Target(
        make_settings, damage_settings, read_settings, (ValueError, TypeError, LookupError), 8_000
    ),
}
ROOT = Path(lrc.__file__).parent
