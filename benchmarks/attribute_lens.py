"""Does the attribute lens see the right object where a prompt leads the model to say a false one?

    .venv/bin/python benchmarks/attribute_lens.py [--only NAME ...] [--seed 0]

For each relation, on the packaged Gemma: facts are split in halves; LREs to the last layer and the object's first
token are fitted on known facts of the one half; known facts of the other half are put into distracting prompts of
the two kinds of Hernandez et al. 2023 (arXiv:2308.09124, section 5). Those after which the model does say the
false object are kept. Layer and scale are chosen on distracting prompts of the first half, for each lens apart.
Writes `benchmarks/results/attribute_lens_gemma-3-270m.json`.
"""

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lrc_tl as lrc
from lrc_tl.models.unembedding import lens_logits
from lrc_tl.passes.activations import prompt_activations
from lrc_tl.passes.batches import logits_at
from lrc_tl.relations.prompts import tokenize_prompt
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parent / "results"
MODEL = "packaged:gemma-3-270m"
RELATIONS = {
    "city in country": "On a map, the city of {} can be found in the country of",
    "company in country": "The company {} was founded in the country of",
    "landmark in country": "On a map, {} can be found in the country of",
}
"""With the template on which the model knows most facts (`results/known_facts_gemma-3-270m.json`)."""
KINDS = {
    "repetition": "{statement} {false}. {statement}",
    "instruction": "Repeat exactly: {statement} {false}. {statement}",
}
N_LRE_PROMPTS = 8
MOST_CHOOSING, MOST_JUDGED = 16, 40
"""Known facts that are put into distracting prompts."""
SUBJECT_LAYERS = (5, 7, 9)
SCALES = (1.0, 2.25)
"""Of W, the paper's beta."""
TOP = 3
LAST_TOKEN, CONTROL = "logit lens, last token", "attribute lens of the mean subject"
LENSES = ("logit lens", LAST_TOKEN, "attribute lens", CONTROL)
"""Read at the last subject token where no other place is named. The control sees no subject of its own."""


@dataclass(frozen=True, kw_only=True)
class Distracted:
    """A distracting prompt after which the model says the false object."""

    prompt: lrc.Prompt
    """Its object is the right one."""
    false: str
    right_token: int
    """First token of the right object."""
    false_token: int


def distracting(
    model: lrc.models.HookedModel, known: Sequence[lrc.Prompt], *, form: str, seed: int
) -> tuple[list[Distracted], int]:
    """Distracting prompts that lead the model astray, and how many were tried: one for each known prompt."""
    draws = random.Random(seed)
    objects = sorted({prompt.object for prompt in known})
    tried = []
    for known_prompt in known:
        false = draws.choice([name for name in objects if name != known_prompt.object])
        text = form.format(statement=known_prompt.text, false=false)
        start = text.rindex(known_prompt.text) + known_prompt.text.rindex(known_prompt.subject)
        # The subject is the one of the last statement, behind the distraction.
        tried.append((lrc.Prompt(text=text, subject=known_prompt.subject, object=known_prompt.object,
                                 relation=known_prompt.relation, subject_start=start), false))  # fmt: skip
    right = [tokenize_prompt(model, prompt) for prompt, _ in tried]
    false_tokens = [tokenize_prompt(model, replace(prompt, object=false)).input_ids for prompt, false in tried]
    sequences = [tokens.text_ids for tokens in right]
    said = {
        row: int(logits[0].argmax())
        for row, logits in logits_at(model, sequences, [[len(ids) - 1] for ids in sequences])
    }
    kept = []
    for row, (prompt, false) in enumerate(tried):
        end = len(sequences[row])
        first, wrong = right[row].input_ids[end], false_tokens[row][end]
        if said[row] == wrong != first:
            kept.append(Distracted(prompt=prompt, false=false, right_token=int(first), false_token=int(wrong)))
    return kept, len(tried)


def places(model: lrc.models.HookedModel, states: Tensor, tokens: Tensor) -> Tensor:
    """Of each row the place of its token among the words that the state says, 0 for the first."""
    ranks = []
    for rows, logits in lens_logits(model, states):
        own = logits.gather(1, tokens[rows, None])
        ranks.append((logits > own).sum(-1))
    return torch.cat(ranks)


def top_shares(
    model: lrc.models.HookedModel,
    given: Sequence[Distracted],
    lres: dict[int, lrc.LinearRelationalEmbedding],
    *,
    only: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """For each lens, layer and setting, how often the right object is among the first, and how often the false."""
    layers = list(range(int(model.cfg.n_layers)))
    acts = prompt_activations(
        model, [one.prompt for one in given], subject_layers=layers, object_layers=layers,
        object_aggregation="first_token",
    )  # fmt: skip
    right, false = (torch.tensor([getattr(one, name) for one in given]) for name in ("right_token", "false_token"))
    rows = []
    for layer in layers:
        settings: list[dict[str, Any]] = [{"lens": name, "layer": layer} for name in LENSES[:2]]
        settings += [
            {"lens": name, "layer": layer, "subject_layer": subject_layer, "lre_beta": scale}
            for name in LENSES[2:]
            for subject_layer in lres
            for scale in SCALES
            if layer == subject_layer
        ]
        for setting in settings:
            wanted = setting["lens"] != CONTROL if only is None else setting == only[setting["lens"]]
            if not wanted:
                continue
            states = (acts.object if setting["lens"] == LAST_TOKEN else acts.subject)[layer]
            if "subject_layer" in setting:
                lre = lres[setting["subject_layer"]]
                if setting["lens"] == CONTROL:
                    states = states.mean(0, keepdim=True).expand_as(states)
                states = setting["lre_beta"] * (states @ lre.weight.T) + lre.bias
            place, false_place = places(model, states, right), places(model, states, false)
            rows.append({
                **setting, "n": len(given), "in_top": [int((place < top).sum()) for top in (1, TOP)],
                "false_in_top": [int((false_place < top).sum()) for top in (1, TOP)],
                "right_before_false": int((place < false_place).sum()),
            })  # fmt: skip
    return rows


def one_relation(model: lrc.models.HookedModel, name: str, *, seed: int) -> dict[str, Any]:
    """Counts for one relation, both kinds of prompts."""
    halves = lrc.load_relation(name).split(seed=seed)
    asked = [
        [prompt for prompt in half.prompts(templates="all") if prompt.template == RELATIONS[name]]
        for half in halves
    ]
    known = [lrc.filter_known(model, prompts, progress=False) for prompts in asked]
    sample = known[0].sample(N_LRE_PROMPTS, seed=seed)
    choosing_from = [prompt for prompt in known[0].prompts if prompt not in sample][:MOST_CHOOSING]
    judged_from = known[1].prompts[:MOST_JUDGED]
    grid = lrc.fit_layer_grid(
        model, sample, subject_layers=SUBJECT_LAYERS, object_layers=[-1], object_aggregation="first_token",
        progress=False,
    )  # fmt: skip
    lres = {layer: lre for (layer, _), lre in grid.items()}
    outcome: dict[str, Any] = {
        "relation": name, "n_known": [len(half.prompts) for half in known],
        "lre_prompts": [prompt.subject for prompt in sample], "kinds": {},
    }  # fmt: skip
    for kind, form in KINDS.items():
        choosing, _ = distracting(model, choosing_from, form=form, seed=seed)
        judged, n_tried = distracting(model, judged_from, form=form, seed=seed + 1)
        outcome["kinds"][kind] = {"n_tried": n_tried, "n_distracted": len(judged), "n_choosing": len(choosing)}
        if not choosing or not judged:
            continue
        on_choosing = top_shares(model, choosing, lres)
        best = {
            lens: max((row for row in on_choosing if row["lens"] == lens), key=lambda row: row["in_top"][::-1])
            for lens in LENSES[:3]
        }
        chosen = {
            lens: {key: row[key] for key in ("lens", "layer", "subject_layer", "lre_beta") if key in row}
            for lens, row in best.items()
        }
        chosen[CONTROL] = {**chosen["attribute lens"], "lens": CONTROL}
        outcome["kinds"][kind]["lenses"] = top_shares(model, judged, lres, only=chosen)
        outcome["kinds"][kind]["prompts"] = [[one.prompt.text, one.prompt.object] for one in judged]
        print(name, kind, {**outcome["kinds"][kind], "prompts": "..."}, flush=True)
    return outcome


def main() -> None:
    """Run, print the table and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(RELATIONS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    started = time.perf_counter()
    model = lrc.load_model(MODEL)
    rows = [one_relation(model, name, seed=given.seed) for name in given.only]
    # By kind of prompt and lens: right object first, right object among the first three, all.
    totals: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        for kind, counts in row["kinds"].items():
            for lens in counts.get("lenses", ()):
                total = totals.setdefault(kind, {}).setdefault(lens["lens"], [0, 0, 0])
                for place, value in enumerate((*lens["in_top"], lens["n"])):
                    total[place] += value
    print(totals)
    fingerprint = lrc.models.ModelFingerprint.of(model)
    write_result(
        given.out or RESULTS / f"attribute_lens_{fingerprint.name}.json",
        kind="attribute_lens",
        results={"relations": rows, "totals": totals},
        settings={"seed": given.seed, "model": MODEL, "n_lre_prompts": N_LRE_PROMPTS, "top": [1, TOP],
                  "subject_layers": list(SUBJECT_LAYERS), "scales": list(SCALES), "forms": KINDS},
        model=fingerprint.to_dict(),
        seconds=time.perf_counter() - started,
    )  # fmt: skip


if __name__ == "__main__":
    main()
