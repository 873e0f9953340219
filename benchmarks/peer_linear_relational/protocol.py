"""The paper's protocol with lrc_tl and with linear-relational: time, memory, and whether they agree.

    peer=$(benchmarks/peer_linear_relational/make_environment.sh)
    .venv/bin/python benchmarks/peer_linear_relational/protocol.py --peer-python "$peer" --relations FOLDER

Both have the same relations (a folder in the LRE dataset's format), splits, prompts and layers and run stage by
stage in turn. Of the peer's filter only the time is used: both go on with the prompts that lrc_tl finds known.
Stages: `filter` (few-shot training prompts, zero-shot test prompts on all templates), `fit` (directions of all
methods), `accuracy`, `causality` (eq. 7). lrc_tl runs with exact and with low-rank Jacobians, the peer with its
key-value cache mended (`peer`) and, in a phase of its own that is not timed, as shipped (`peer_shipped`).

Finished relations are kept in `--out`, and `--resume` goes on with the others. Writes
`benchmarks/results/peer_protocol.json` and prints tables. Let nothing else run during the phase `timed`.
"""

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peer import RESULTS, Peer
from protocol_runs import (
    BETA,
    LRE_PROMPTS,
    MAX_FACTS,
    METHODS,
    MODEL,
    OBJECT_LAYER,
    RANK,
    SEED,
    SHOTS,
    STAGES,
    SUBJECT_LAYER,
    shipped,
    timed,
    warm_up,
)
from protocol_tables import summary, tables

import lrc_tl as lrc
from lrc_tl.models.packaged import PACKAGED, packaged_folder
from lrc_tl.storage.json_results import write_result

RESULT = RESULTS / "peer_protocol.json"
RELATIONS = (
    "landmark on continent,country language,word first letter,plays pro sport,person native language,"
    "substance phase of matter,name gender,occupation gender,product by company"
)
PHASES = ("timed", "shipped")


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True, help="what make_environment.sh prints")
    parser.add_argument("--relations", required=True, type=Path, help="a folder in the LRE dataset's format")
    parser.add_argument("--only", default=RELATIONS, help="names of relations")
    parser.add_argument("--phases", default=",".join(PHASES), help="timed, shipped, or both")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "peer_protocol.parts", help="keeps finished relations"
    )
    parser.add_argument("--resume", action="store_true", help="take what is in --out")
    given = parser.parse_args()
    started = time.perf_counter()
    given.out.mkdir(parents=True, exist_ok=True)
    phases = given.phases.split(",")
    found, _ = lrc.load_relations(given.relations)
    relations = [lrc.find_relation(found, name) for name in given.only.split(",")]
    model = lrc.load_model(MODEL)
    peer = Peer(given.peer_python, packaged_folder(PACKAGED[MODEL]))
    files = {relation.name: given.out / f"{relation.name.replace(' ', '_')}.json" for relation in relations}
    records: dict[str, dict[str, Any]] = {}
    for name, file in files.items():
        if given.resume and file.is_file():
            records[name] = json.loads(file.read_text(encoding="utf-8"))

    def keep(record: dict[str, Any]) -> None:
        records[record["relation"]] = record
        files[record["relation"]].write_text(json.dumps(record), encoding="utf-8")
        say(record)

    missing = [relation for relation in relations if relation.name not in records]
    if "timed" in phases and missing:
        warm_up(model, peer, missing[0])
        for relation in missing:
            keep(timed(model, peer, relation, files[relation.name].with_suffix(".npz")))
    for name, record in list(records.items()):
        if "shipped" in phases and record["left_out"] is None and "peer_shipped" not in record["runs"]:
            keep(shipped(model, peer, record, files[name].with_suffix(".npz")))
    about = peer.about
    peer.close()
    used = [record for record in records.values() if record["left_out"] is None]
    if not used:
        raise SystemExit("no relation could be evaluated")
    results = summary(used)
    write_result(
        RESULT,
        kind="peer_protocol",
        results={
            **results,
            "relations_left_out": {n: r["left_out"] for n, r in records.items() if r["left_out"] is not None},
            "relations_not_run": [relation.name for relation in relations if relation.name not in records],
            "relations": [
                {key: value for key, value in record.items() if key not in ("chosen", "left_out")}
                for record in records.values()
            ],
        },
        settings={
            "command": " ".join(["python", "benchmarks/peer_linear_relational/protocol.py", *shown(sys.argv[1:])]),
            "subject_layer": SUBJECT_LAYER,
            "object_layer": OBJECT_LAYER,
            "rank": RANK,
            "beta": BETA,
            "max_facts": MAX_FACTS,
            "max_lre_prompts": LRE_PROMPTS,
            "shots": SHOTS,
            "seed": SEED,
            "methods": METHODS,
            "versions": {name: version(name) for name in ("torch", "transformers", "transformer-lens")},
            "threads": torch.get_num_threads(),
            "peer": about,
            "peer_attention": "eager",
            "peer_padding": "right",
            "peer_cache": "copied before each forward pass; in `peer_shipped` not",
            "peer_gradients": "off around its validation, which leaves them on",
        },
        model=lrc.models.ModelFingerprint.of(model).to_dict(),
        seconds=time.perf_counter() - started,
    )
    print(tables(used, results))


def shown(arguments: list[str]) -> list[str]:
    """The command's arguments without this machine's paths."""
    hidden = {"--peer-python": "$peer", "--relations": "FOLDER", "--out": "PARTS"}
    pairs = zip(["", *arguments], arguments, strict=False)
    return [hidden.get(before, argument) for before, argument in pairs]


def say(record: dict[str, Any]) -> None:
    """One line on a finished relation."""
    if record["left_out"] is not None:
        print(f"{record['relation']}: left out, {record['left_out']}", flush=True)
        return
    runs = (
        f"{name} " + ", ".join(f"{stage} {run['seconds'][stage]:.1f}" for stage in STAGES)
        for name, run in record["runs"].items()
        if "seconds" in run
    )
    print(f"{record['relation']}: {'; '.join(runs)} s", flush=True)


if __name__ == "__main__":
    main()
