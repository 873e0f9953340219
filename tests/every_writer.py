"""Run by `test_faults`: everything that writes, on a disk that is full, read-only, or beside a process that dies.

`python every_writer.py full|read_only FOLDER` prints what each said, as JSON.
"""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

import torch
from made_up_units import SETTINGS, UNITS, unit_record, write_shard
from test_damaged_files import a_set, an_lre
from test_protocol_result import RECORDS, RESULT
from tiny_directions import FINGERPRINT

import lrc_tl as lrc
from lrc_tl.experiments.resuming import StoredRecords
from lrc_tl.experiments.sweep_merge import merge_sweeps
from lrc_tl.experiments.sweep_store import SweepStore
from lrc_tl.storage.json_results import write_result

RELATION = lrc.Relation.from_pairs("r", {f"s{n}": f"o{n % 2}" for n in range(4)}, templates=["{} is"])


def writers(folder, elsewhere):
    """By name, what writes a file of its own into the folder."""
    store = SweepStore(folder=folder / "sweep", settings=SETTINGS, model=FINGERPRINT.to_dict())
    stored = StoredRecords(folder=folder / "parts", settings={"methods": []}, fingerprint=FINGERPRINT)

    def write_unit():
        with store.open():
            store.write(unit_record(*UNITS[0]), content="x", seconds=1.0)

    def write_record():
        with stored.open():
            stored.write("a seed 1", RECORDS[0], content=[], seconds=1.0)

    return {
        "ConceptSet.save": lambda: a_set().save(folder / "set"),
        "LinearRelationalEmbedding.save": lambda: an_lre().save(folder / "lre"),
        "Relation.save": lambda: RELATION.save(folder / "relation.json"),
        "ProtocolResult.save": lambda: RESULT.save(folder / "result.json"),
        "write_control_vector": lambda: lrc.write_control_vector(
            folder / "vector.gguf", {1: torch.ones(64)}, model_hint="gemma3"
        ),
        "--json": lambda: write_result(
            folder / "json", kind="x", results={"a": 1}, settings={}, model=None, seconds=1.0
        ),
        "a sweep's unit": write_unit,
        "a benchmark's part": write_record,
        "merge_sweeps": lambda: merge_sweeps([elsewhere], out=folder / "merged"),
    }


def said(write):
    try:
        write()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def broken(kind, folder, elsewhere):
    """What every writer says on such a disk, and what is left there; each file was whole before."""
    folder, elsewhere = Path(folder), write_shard(Path(elsewhere) / "shard", [unit_record(*UNITS[0])])
    by_name = writers(folder, elsewhere)
    assert not any(said(write) for name, write in by_name.items() if name != "merge_sweeps")
    before = content(folder)
    if kind == "full":
        with (folder / "filler").open("wb") as filler:
            while said(lambda: os.write(filler.fileno(), bytes(512))) is None:
                pass
    else:
        assert os.system(f"mount -o remount,ro {folder}") == 0
    texts = {name: said(write) for name, write in by_name.items()}
    after = {name: data for name, data in content(folder).items() if name != "filler"}
    changed = sorted(name for name in {**before, **after} if before.get(name) != after.get(name))
    print(json.dumps({"texts": texts, "changed": changed}))


def content(folder):
    """Every file but locks, which are empty and stay."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def killed(kind, folder, _):
    """A child saves two sets by turns and is killed at any time: what is there is one of the two, whole."""
    path, sets = Path(folder) / "set", (a_set(), a_set(calibrated=False))
    wholes = []
    for made in sets:
        made.save(path)
        wholes.append(path.read_bytes())
    seen = []
    for number in range(24):
        child = os.fork()
        if child == 0:
            while True:
                for made in sets:
                    made.save(path)
        os.sched_yield()
        # Later and later within some saves, which take a millisecond or a few.
        signal.sigtimedwait([], 0.002 + number * 0.0007)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen.append(wholes.index(path.read_bytes()))
        lrc.ConceptSet.load(path)
    others = [entry.name for entry in Path(folder).iterdir() if entry.name != "set"]
    print(json.dumps({"seen": seen, "others": others}))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    (killed if sys.argv[1] == "killed" else broken)(*sys.argv[1:])
