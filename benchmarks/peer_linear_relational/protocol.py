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
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer import RESULTS, Peer, forget_peak, plain, relative

import lrc_tl as lrc
from lrc_tl.evaluation.causality import Edit, causality_curves, counterfactual_edits
from lrc_tl.evaluation.classification import classify_activations
from lrc_tl.evaluation.summary import swap_differences
from lrc_tl.json_results import peak_rss_bytes, write_result
from lrc_tl.knowledge import filter_known, one_prompt_a_fact
from lrc_tl.packaged import PACKAGED, packaged_folder
from lrc_tl.relation_benchmark import MIN_TEST_FACTS, splittable_sample

RESULT = RESULTS / "peer_protocol.json"
MODEL = "packaged:gemma-3-270m"
RELATIONS = (
    "landmark on continent,country language,word first letter,plays pro sport,person native language,"
    "substance phase of matter,name gender,occupation gender,product by company"
)
SUBJECT_LAYER, OBJECT_LAYER, RANK, BETA = 9, 13, 64, 0.1
MAX_FACTS, LRE_PROMPTS, SHOTS, SEED = 60, 10, 4, 42
LRE_METHODS = {"lrc": (OBJECT_LAYER, "mean"), "lrc-final": (-1, "first_token")}
METHODS = (*LRE_METHODS, "svm", "mean")
STAGES = ("filter", "fit", "accuracy", "causality")
RUNS = {
    "exact": "lrc_tl, exact",
    "low_rank": "lrc_tl, low rank",
    "peer": "linear-relational, cache mended",
    "peer_shipped": "linear-relational, as shipped",
}
PHASES = ("timed", "shipped")


@dataclass
class Measured:
    """Seconds and peak memory of one library's stages on one relation."""

    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_bytes: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what runs inside, in this process."""
        forget_peak()
        started = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - started, peak_rss_bytes() or 0)

    def add(self, name: str, seconds: float, peak: int) -> None:
        """One stage that was measured elsewhere."""
        self.seconds[name], self.peak_rss_bytes[name] = seconds, peak

    def answered(self, name: str, answer: dict[str, Any]) -> dict[str, Any]:
        """A stage of the peer's, by its answer."""
        self.add(name, answer["seconds"], answer["peak_rss_bytes"])
        return answer


@dataclass(kw_only=True)
class Chosen:
    """What both libraries go on with."""

    known: lrc.KnownPrompts
    sample: tuple[lrc.Prompt, ...]
    """Of the known training prompts, those for the LREs."""
    test: tuple[lrc.Prompt, ...]
    edits: tuple[Edit, ...] = ()


def fit_ours(model: Any, chosen: Chosen, relation: str, method: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Directions of every method, and the LREs, from one pass over the known prompts and one fit an LRE."""
    prompts = chosen.known.prompts
    names = [prompt.object for prompt in prompts]
    read = lrc.prompt_activations(
        model,
        prompts,
        subject_layers=[SUBJECT_LAYER],
        object_layers=[layer for layer, _ in LRE_METHODS.values()],
        object_aggregation={layer: way for layer, way in LRE_METHODS.values()},  # type: ignore[misc]
    )
    sets, lres = {}, {}
    for name, (layer, aggregation) in LRE_METHODS.items():
        lres[name] = lrc.LinearRelationalEmbedding.fit(
            model,
            chosen.sample,
            subject_layer=SUBJECT_LAYER,
            object_layer=layer,
            object_aggregation=aggregation,  # type: ignore[arg-type]
            method=method,
            rank=RANK if method == "low_rank" else None,
            progress=False,
        )
        sets[name] = lres[name].concepts_from_activations(read.object[layer], names, rank=RANK)
    for name in METHODS:
        if name not in sets:
            sets[name] = lrc.baseline_concepts(
                read.subject[SUBJECT_LAYER],
                names,
                method=name,
                hook_name=lres["lrc"].subject_hook,
                relation=relation,
                fingerprint=lres["lrc"].fingerprint,
                seed=SEED,
            )
    return sets, lres


def figures(chosen: Chosen, predicted: dict[str, Any], success: dict[str, list[bool]]) -> dict[str, Any]:
    """Predictions and successes of every method, with their shares."""
    actual = [prompt.object for prompt in chosen.test]
    found: dict[str, Any] = {}
    for method in METHODS:
        correct = [one == other for one, other in zip(predicted[method], actual, strict=True)]
        found[method] = {
            "predicted": list(predicted[method]),
            "success": success[method],
            "accuracy": statistics.mean(correct),
            "causality": statistics.mean(success[method]) if success[method] else None,
            "n_correct": sum(correct),
            "n_success": sum(success[method]),
        }
    return found


def evaluate_ours(model: Any, chosen: Chosen, sets: dict[str, Any], measured: Measured) -> dict[str, Any]:
    """Accuracy and causality of every method, without the benchmark's controls, which the peer has not."""
    actual = [prompt.object for prompt in chosen.test]
    with measured.stage("accuracy"):
        subjects = lrc.prompt_activations(model, chosen.test, subject_layers=[SUBJECT_LAYER]).subject
        predicted = {
            method: classify_activations(own, subjects[SUBJECT_LAYER], actual).predicted
            for method, own in sets.items()
        }
    with measured.stage("causality"):
        success: dict[str, list[bool]] = {method: [] for method in sets}
        if chosen.edits:
            differences = {method: swap_differences(own, chosen.edits) for method, own in sets.items()}
            curves = causality_curves(model, chosen.edits, differences, betas=[BETA])
            success = {method: curve[0].success.tolist() for method, curve in curves.items()}
    return figures(chosen, predicted, success)


def fit_peer(peer: Peer, chosen: Chosen, save: Path | None) -> dict[str, Any]:
    """The peer's directions of every method, kept in its process."""
    places = {id(prompt): number for number, prompt in enumerate(chosen.known.prompts)}
    return peer.ask(
        "fit_methods",
        prompts=plain(chosen.known.prompts),
        lre=[places[id(prompt)] for prompt in chosen.sample],
        methods={
            name: dict(zip(("layer", "aggregation"), LRE_METHODS[name], strict=True))
            if name in LRE_METHODS
            else None
            for name in METHODS
        },
        subject_layer=SUBJECT_LAYER,
        rank=RANK,
        seed=SEED,
        save=None if save is None else str(save),
    )


def evaluate_peer(
    model: Any, peer: Peer, chosen: Chosen, measured: Measured
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Accuracy and causality with the peer's last directions; where its subjects are elsewhere than ours."""
    answer = measured.answered("accuracy", peer.ask("predict", prompts=plain(chosen.test)))
    elsewhere = [
        prompt.text
        for prompt, position in zip(chosen.test, answer["positions"], strict=True)
        if lrc.tokenize_prompt(model, prompt).subject_position != position
    ]
    edits = [{**plain([edit.prompt])[0], "target": edit.target} for edit in chosen.edits]
    swapped = measured.answered("causality", peer.ask("swap", edits=edits, beta=BETA))
    success = {
        method: [target > original for original, target in rows] for method, rows in swapped["log_probs"].items()
    }
    return figures(chosen, answer["predicted"], success), {"subjects_elsewhere": elsewhere}


def timed(model: Any, peer: Peer, relation: lrc.Relation, arrays: Path) -> dict[str, Any]:
    """One relation with lrc_tl, exact and low-rank, and the mended peer, stage by stage in turn."""
    relation = splittable_sample(relation, MAX_FACTS, seed=SEED)
    train, test = relation.split(seed=SEED)
    lists = [train.prompts(shots=SHOTS, seed=SEED), test.prompts(seed=SEED, templates="all")]
    runs = {name: Measured() for name in ("exact", "low_rank", "peer")}
    with runs["exact"].stage("filter"):
        found = [filter_known(model, own, seed=SEED, whole_answers=False) for own in lists]
    runs["low_rank"].add("filter", runs["exact"].seconds["filter"], runs["exact"].peak_rss_bytes["filter"])
    theirs = runs["peer"].answered("filter", peer.ask("filter", lists=[plain(own) for own in lists]))
    known, unseen = found[0], one_prompt_a_fact(found[1])
    counts = {
        "n_facts": len(relation.facts),
        "n_asked": [len(own) for own in lists],
        "n_known": [len(own.prompts) for own in found],
        "filters": [
            disagreement(own, kept, answers)
            for own, kept, answers in zip(lists, found, theirs["known"], strict=True)
        ],
    }
    head = {"relation": relation.name, **counts}
    if len(unseen.prompts) < MIN_TEST_FACTS or len({prompt.object for prompt in known.prompts}) < 2:
        return {**head, "left_out": f"{len(known.prompts)} training, {len(unseen.prompts)} test facts are known"}
    chosen = Chosen(known=known, sample=known.sample(LRE_PROMPTS, seed=SEED), test=unseen.prompts)
    usable = [one for one in chosen.test if one.object in {prompt.object for prompt in known.prompts}]
    if len({prompt.object for prompt in usable}) > 1:
        chosen.edits = counterfactual_edits(usable, seed=SEED)
    own: dict[str, dict[str, Any]] = {}
    sets: dict[str, dict[str, Any]] = {}
    for name in ("exact", "low_rank"):
        with runs[name].stage("fit"):
            sets[name], lres = fit_ours(model, chosen, relation.name, name)
        if name == "exact":
            exact = lres
    answer = runs["peer"].answered("fit", fit_peer(peer, chosen, arrays))
    for name in ("exact", "low_rank"):
        own[name] = evaluate_ours(model, chosen, sets[name], runs[name])
    own["peer"], places = evaluate_peer(model, peer, chosen, runs["peer"])
    return {
        **head,
        "left_out": None,
        "n_lre_prompts": len(chosen.sample),
        "n_objects": len(sets["exact"]["lrc"]),
        "n_test": len(chosen.test),
        "n_edits": len(chosen.edits),
        "peer_fit_seconds": answer["methods"],
        "runs": {
            name: {"seconds": run.seconds, "peak_rss_bytes": run.peak_rss_bytes, "methods": own[name]}
            for name, run in runs.items()
        },
        "against_exact": {
            "low_rank": {"cosines": cosines(sets["exact"], lambda m, o: sets["low_rank"][m][o].vector)},
            "peer": {**compare(sets["exact"], exact, arrays), **places},
        },
        "chosen": {
            "known": plain(known.prompts),
            "sample": plain(chosen.sample),
            "test": plain(chosen.test),
            "edits": [edit.target for edit in chosen.edits],
            "edited": plain([edit.prompt for edit in chosen.edits]),
        },
    }


def shipped(model: Any, peer: Peer, record: dict[str, Any], arrays: Path) -> dict[str, Any]:
    """The record with the peer as shipped on the same prompts, against the mended peer's `arrays`."""

    def prompts(name: str) -> tuple[lrc.Prompt, ...]:
        return tuple(lrc.Prompt(**one) for one in record["chosen"][name])

    known, sample = prompts("known"), prompts("sample")
    by_content = {(one.text, one.object): one for one in known}
    chosen = Chosen(
        known=lrc.KnownPrompts(prompts=known, dropped=()),
        sample=tuple(by_content[one.text, one.object] for one in sample),
        test=prompts("test"),
        edits=tuple(
            Edit(prompt=prompt, target=target)
            for prompt, target in zip(prompts("edited"), record["chosen"]["edits"], strict=True)
        ),
    )
    peer.ask("cache", copied=False)
    measured = Measured()
    own = arrays.with_name(f"{arrays.stem}.shipped.npz")
    measured.answered("fit", fit_peer(peer, chosen, own))
    methods, _ = evaluate_peer(model, peer, chosen, measured)
    mended, broken = np.load(arrays), np.load(own)
    found: dict[str, Any] = {"cosines": {method: {} for method in METHODS}}
    for key in mended.files:
        kind, method, *rest = key.split(" ", 2)
        if kind == "direction":
            found["cosines"][method][rest[0]] = float(mended[key] @ broken[key])
        else:
            found.setdefault(f"relative_error_{kind}", {})[method] = relative(
                torch.from_numpy(broken[key]), mended[key]
            )
    record["runs"]["peer_shipped"] = {"methods": methods}
    record["shipped_against_mended"] = found
    return record


def disagreement(asked: Sequence[lrc.Prompt], kept: lrc.KnownPrompts, theirs: list[bool]) -> dict[str, Any]:
    """How the two filters judge the same prompts; the prompts that they judge differently."""
    ours = {id(prompt) for prompt in kept.prompts}
    answers = {id(entry.prompt): entry.answer for entry in kept.dropped}
    only_ours = [p for p, known in zip(asked, theirs, strict=True) if id(p) in ours and not known]
    only_theirs = [p for p, known in zip(asked, theirs, strict=True) if id(p) not in ours and known]
    return {
        "n": len(asked),
        "both": sum(theirs) - len(only_theirs),
        "only_lrc_tl": [[p.text[-60:], p.object] for p in only_ours],
        "only_peer": [[p.text[-60:], p.object, answers[id(p)]] for p in only_theirs],
    }


def cosines(sets: dict[str, Any], other: Callable[[str, str], torch.Tensor]) -> dict[str, dict[str, float]]:
    """Of each direction with the other library's or fit's."""
    return {
        method: {name: float(one.vector.float() @ other(method, name).float()) for name, one in own.items()}
        for method, own in sets.items()
    }


def compare(sets: dict[str, Any], lres: dict[str, Any], arrays: Path) -> dict[str, Any]:
    """Errors of the peer's W and b relative to themselves, and cosines of its directions with ours."""
    theirs = np.load(arrays)
    return {
        "relative_error_weight": {m: relative(lre.weight, theirs[f"weight {m}"]) for m, lre in lres.items()},
        "relative_error_bias": {m: relative(lre.bias, theirs[f"bias {m}"]) for m, lre in lres.items()},
        "cosines": cosines(sets, lambda m, o: torch.from_numpy(theirs[f"direction {m} {o}"])),
    }


def warm_up(model: Any, peer: Peer, relation: lrc.Relation) -> None:
    """A little of everything, uncounted."""
    prompts = relation.prompts(shots=SHOTS, seed=SEED)[:8]
    filter_known(model, prompts, whole_answers=False)
    peer.ask("filter", lists=[plain(prompts)])
    known = lrc.KnownPrompts(prompts=tuple(prompts), dropped=())
    chosen = Chosen(known=known, sample=tuple(prompts[:1]), test=tuple(prompts[:2]))
    sets, _ = fit_ours(model, chosen, relation.name, "exact")
    evaluate_ours(model, chosen, sets, Measured())
    fit_peer(peer, chosen, None)
    evaluate_peer(model, peer, chosen, Measured())


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums of seconds, largest peaks, and accuracy and causality over all relations."""
    found: dict[str, Any] = {"timing": {}, "methods": {}, "agreement": {}}
    for name in ("exact", "low_rank", "peer"):
        seconds = {stage: sum(r["runs"][name]["seconds"][stage] for r in records) for stage in STAGES}
        found["timing"][name] = {
            "seconds": {**seconds, "whole": sum(seconds.values())},
            "peak_rss_bytes": {
                stage: max(r["runs"][name]["peak_rss_bytes"][stage] for r in records) for stage in STAGES
            },
        }
    theirs = found["timing"]["peer"]["seconds"]
    for name in ("exact", "low_rank"):
        own = found["timing"][name]
        own["times_faster"] = {stage: theirs[stage] / own["seconds"][stage] for stage in theirs}
    for name in RUNS:
        used = [r for r in records if name in r["runs"]]
        if not used:
            continue
        found["methods"][name] = {method: over_relations(used, name, method) for method in METHODS}
        against = {"exact": [], "low_rank": ["exact"], "peer": ["exact"], "peer_shipped": ["peer"]}[name]
        for other in against:
            found["agreement"][f"{name} with {other}"] = {
                method: {
                    kind: same(used, name, other, method, key)
                    for kind, key in (("equal_predictions", "predicted"), ("equal_edits", "success"))
                }
                for method in METHODS
            }
    return found


def over_relations(records: list[dict[str, Any]], run: str, method: str) -> dict[str, Any]:
    """Counts and shares, pooled and averaged over the relations."""
    own = [record["runs"][run]["methods"][method] for record in records]
    with_edits = [one["causality"] for one in own if one["causality"] is not None]
    n_test, n_edits = sum(r["n_test"] for r in records), sum(r["n_edits"] for r in records)
    return {
        "n_relations": len(records),
        "n_test": n_test,
        "n_edits": n_edits,
        "accuracy_pooled": sum(one["n_correct"] for one in own) / n_test,
        "accuracy_macro": statistics.mean(one["accuracy"] for one in own),
        "causality_pooled": sum(one["n_success"] for one in own) / n_edits if n_edits else None,
        "causality_macro": statistics.mean(with_edits) if with_edits else None,
    }


def same(records: list[dict[str, Any]], run: str, other: str, method: str, key: str) -> float | None:
    """Share of test prompts or edits on which two runs say the same."""
    equal = [
        one == two
        for record in records
        for one, two in zip(*(record["runs"][name]["methods"][method][key] for name in (run, other)), strict=True)
    ]
    return statistics.mean(equal) if equal else None


def tables(records: list[dict[str, Any]], found: dict[str, Any]) -> str:
    """The Markdown tables."""
    timing = found["timing"]
    lines = [
        "| stage | exact, s | low rank, s | linear-relational, s | times faster, exact | low rank | "
        "peak GiB, exact | low rank | the peer's |",
        "|---|" + "---|" * 8,
    ]
    for stage in (*STAGES, "whole"):
        peaks = [
            max(own["peak_rss_bytes"].values()) if stage == "whole" else own["peak_rss_bytes"][stage]
            for own in timing.values()
        ]
        cells = [f"{own['seconds'][stage]:.1f}" for own in timing.values()]
        cells += [f"{timing[name]['times_faster'][stage]:.2f}" for name in ("exact", "low_rank")]
        lines.append(f"| {stage} | {' | '.join(cells + [f'{peak / 2**30:.2f}' for peak in peaks])} |")
    names = list(found["methods"])
    lines += [
        "",
        f"| method | figure | {' | '.join(RUNS[name] for name in names)} |",
        "|---|---|" + "---|" * len(names),
    ]
    for method in METHODS:
        for figure in ("accuracy_pooled", "accuracy_macro", "causality_pooled", "causality_macro"):
            values = (found["methods"][name][method][figure] for name in names)
            lines.append(f"| {method} | {figure.replace('_', ', ')} | {' | '.join(map(share, values))} |")
    lines += [
        "",
        "| relation | test | edits | " + " | ".join(METHODS) + " |",
        "|---|---|---|" + "---|" * len(METHODS),
    ]
    for record in records:
        cells = []
        for method in METHODS:
            pairs = (
                "/".join(
                    share(record["runs"][name]["methods"][method][figure]) if name in record["runs"] else "-"
                    for name in RUNS
                )
                for figure in ("accuracy", "causality")
            )
            cells.append(", ".join(pairs))
        lines.append(f"| {record['relation']} | {record['n_test']} | {record['n_edits']} | {' | '.join(cells)} |")
    lines += ["", "| runs | method | equal predictions | equal edits |", "|---|---|---|---|"]
    for pair, methods in found["agreement"].items():
        for method, one in methods.items():
            cells = [share(one[kind]) for kind in ("equal_predictions", "equal_edits")]
            lines.append(f"| {pair} | {method} | {' | '.join(cells)} |")
    lines += ["", *errors(records)]
    return "\n".join(lines)


def errors(records: list[dict[str, Any]]) -> list[str]:
    """The largest errors of W and b and the cosines of the directions, as a table."""
    sources = {
        "exact, mended peer": [r["against_exact"]["peer"] for r in records],
        "exact, low rank": [r["against_exact"]["low_rank"] for r in records],
        "mended peer, as shipped": [r["shipped_against_mended"] for r in records if "shipped_against_mended" in r],
    }
    lines = [
        "| compared | method | largest error of W | of b | least cosine | median cosine |",
        "|---|" + "---|" * 5,
    ]
    for pair, found in sources.items():
        for method in METHODS if found else ():
            cells = []
            for kind in ("weight", "bias"):
                own = [one.get(f"relative_error_{kind}", {}).get(method) for one in found]
                cells.append("-" if None in own else f"{max(own):.1e}")
            values = [value for one in found for value in one["cosines"][method].values()]
            cells += [f"{min(values):.6f}", f"{statistics.median(values):.6f}"]
            lines.append(f"| {pair} | {method} | {' | '.join(cells)} |")
    return lines


def share(value: float | None) -> str:
    """A share as this project writes it."""
    return "-" if value is None else "1.000" if math.isclose(value, 1) else f"{value:.3f}"[1:]


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
        model=lrc.ModelFingerprint.of(model).to_dict(),
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
