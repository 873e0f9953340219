"""Does the attribute lens see the right object where a prompt leads the model to say a false one?

    .venv/bin/python benchmarks/attribute_lens.py [--only NAME ...] [--seed 0] [--resume]

For each relation, on the packaged Gemma: facts are split in halves; LREs to the last layer and the object's first
token are fitted on known facts of the one half; known facts of the other half are put into distracting prompts of
the two kinds of Hernandez et al. 2023 (arXiv:2308.09124, section 5), which say a false object twice, or ask to
repeat it, and name the subject once more; lenses are read at that last mention. Layer and scale are chosen on
distracting prompts of the first half, for each lens apart. Some two minutes per relation on 2 cores; each finished
one is kept, and `--resume` goes on.
Writes `benchmarks/results/attribute_lens_gemma-3-270m.json`.
"""

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lrc_tl as lrc
from lrc_tl.models.unembedding import lens_logits
from lrc_tl.passes.activations import prompt_activations
from lrc_tl.relations.prompts import tokenize_prompt
from lrc_tl.storage.json_results import write_result

RESULTS = Path(__file__).parent / "results"
MODEL = "packaged:gemma-3-270m"
RELATIONS = {
    "city in country": "On a map, the city of {} can be found in the country of",
    "company in country": "The company {} was founded in the country of",
    "landmark in country": "On a map, {} can be found in the country of",
    "country language": "The main official language of the country of {} is",
    "country on continent": "On a world map, the country of {} belongs to the continent of",
    "person field": "{} is one of the most famous people in the world of",
    "food kind": "In the supermarket, {} is sold as a type of",
    "animal class": "A zoologist would say that the {} belongs to the class of",
}
"""With the template on which the model knows most facts (`results/known_facts_gemma-3-270m.json`)."""
KINDS = {
    "repetition": "{statement} {false}. {statement} {false}. {statement}",
    "instruction": "Repeat exactly: {statement} {false}. {statement}",
}
N_LRE_PROMPTS = 5
MOST_CHOOSING, MOST_JUDGED = 10, 30
"""Known facts that are put into distracting prompts."""
SUBJECT_LAYERS = (7, 9)
SCALES = (1.0, 2.25)
"""Of W, the paper's beta."""
TOP = 3
MODEL_ITSELF, LAST_TOKEN, CONTROL = "the model", "logit lens, last token", "attribute lens of the mean subject"
LENSES = ("logit lens", LAST_TOKEN, "attribute lens")
"""Those whose settings are chosen; read at the last subject token where no other place is named. Beside them stand
the model's own next token, and the control, which sees no subject of its own."""
Setting = dict[str, Any]
"""The lens, its layer, and the scale of W where it has one; a subject layer is the layer of the attribute lens."""


@dataclass(frozen=True, kw_only=True)
class Distracting:
    """A prompt with a false statement before the one that is to be completed."""

    prompt: lrc.Prompt
    """Its object is the right one, its subject the last mention."""
    false: str
    right_token: int
    """First token of the right object."""
    false_token: int


def distracting(
    model: lrc.models.HookedModel, known: Sequence[lrc.Prompt], *, form: str, seed: int
) -> list[Distracting]:
    """One for each known prompt, with a false object whose first token is another one."""
    draws = random.Random(seed)
    objects = sorted({prompt.object for prompt in known})
    made = []
    for known_prompt in known:
        false = draws.choice([name for name in objects if name != known_prompt.object])
        text = form.format(statement=known_prompt.text, false=false)
        start = text.rindex(known_prompt.text) + known_prompt.text.rindex(known_prompt.subject)
        prompt = lrc.Prompt(text=text, subject=known_prompt.subject, object=known_prompt.object,
                            relation=known_prompt.relation, subject_start=start)  # fmt: skip
        right = tokenize_prompt(model, prompt).object_ids[0]
        wrong = tokenize_prompt(model, replace(prompt, object=false)).object_ids[0]
        if right != wrong:
            made.append(Distracting(prompt=prompt, false=false, right_token=int(right), false_token=int(wrong)))
    return made


def places(model: lrc.models.HookedModel, states: Tensor, tokens: Tensor) -> Tensor:
    """Of each row the places of its tokens among the words that the state says, 0 for the first."""
    ranks = []
    for rows, logits in lens_logits(model, states):
        own = logits.gather(1, tokens[rows])
        ranks.append((logits[:, None] > own[:, :, None]).sum(-1))
    return torch.cat(ranks)


def counted(
    model: lrc.models.HookedModel,
    given: Sequence[Distracting],
    lres: Mapping[int, lrc.LinearRelationalEmbedding],
    settings: Sequence[Setting],
) -> list[dict[str, Any]]:
    """For each setting, how often the right object is among the first, and how often the false; also among those
    prompts after which the model itself says the false object. All states go through the unembedding together."""
    layers = list(range(int(model.cfg.n_layers)))
    acts = prompt_activations(
        model, [one.prompt for one in given], subject_layers=layers, object_layers=layers,
        object_aggregation="first_token",
    )  # fmt: skip
    asked = [{"lens": MODEL_ITSELF, "layer": layers[-1]}, *settings]
    states = torch.cat([_state(acts, lres, setting) for setting in asked])
    tokens = torch.tensor([[one.right_token, one.false_token] for one in given])
    ranks = places(model, states, tokens.repeat(len(asked), 1)).view(len(asked), len(given), 2)
    astray = ranks[0, :, 1] == 0
    return [
        {
            **setting,
            **_counts(own),
            "astray": _counts(own[astray]),
        }
        for setting, own in zip(asked, ranks, strict=True)
    ]


def _state(acts: Any, lres: Mapping[int, lrc.LinearRelationalEmbedding], setting: Setting) -> Tensor:
    states: Tensor = (acts.object if setting["lens"] in (MODEL_ITSELF, LAST_TOKEN) else acts.subject)[
        setting["layer"]
    ]
    if "lre_beta" not in setting:
        return states
    lre = lres[setting["layer"]]
    if setting["lens"] == CONTROL:
        states = states.mean(0, keepdim=True).expand_as(states)
    return setting["lre_beta"] * (states @ lre.weight.T) + lre.bias


def _counts(ranks: Tensor) -> dict[str, Any]:
    right, false = ranks.unbind(-1)
    return {
        "n": len(right),
        "in_top": [int((right < top).sum()) for top in (1, TOP)],
        "false_in_top": [int((false < top).sum()) for top in (1, TOP)],
    }


def one_relation(model: lrc.models.HookedModel, name: str, *, seed: int) -> dict[str, Any]:
    """Counts for one relation, both kinds of prompts."""
    started = time.process_time()
    halves = lrc.load_relation(name).split(seed=seed)
    asked = [
        [prompt for prompt in half.prompts(templates="all") if prompt.template == RELATIONS[name]]
        for half in halves
    ]
    known = [lrc.filter_known(model, prompts, whole_answers=False, progress=False) for prompts in asked]
    sample = known[0].sample(N_LRE_PROMPTS, seed=seed)
    choosing_from = [prompt for prompt in known[0].prompts if prompt not in sample][:MOST_CHOOSING]
    grid = lrc.fit_layer_grid(
        model, sample, subject_layers=SUBJECT_LAYERS, object_layers=[-1], object_aggregation="first_token",
        progress=False,
    )  # fmt: skip
    lres = {layer: lre for (layer, _), lre in grid.items()}
    candidates: list[Setting] = [
        {"lens": lens, "layer": layer} for lens in LENSES[:2] for layer in range(int(model.cfg.n_layers))
    ]
    candidates += [
        {"lens": LENSES[2], "layer": layer, "lre_beta": scale} for layer in SUBJECT_LAYERS for scale in SCALES
    ]
    outcome: dict[str, Any] = {
        "relation": name, "n_objects": len({prompt.object for prompt in known[1].prompts}),
        "n_known": [len(half.prompts) for half in known], "lre_prompts": [prompt.subject for prompt in sample],
        "kinds": {},
    }  # fmt: skip
    for kind, form in KINDS.items():
        choosing = distracting(model, choosing_from, form=form, seed=seed)
        judged = distracting(model, known[1].prompts[:MOST_JUDGED], form=form, seed=seed + 1)
        tried = counted(model, choosing, lres, candidates)
        best = [
            max((row for row in tried if row["lens"] == lens), key=lambda row: row["in_top"][::-1])
            for lens in LENSES
        ]
        chosen = [{key: row[key] for key in ("lens", "layer", "lre_beta") if key in row} for row in best]
        chosen.append({**chosen[-1], "lens": CONTROL})
        lenses = counted(model, judged, lres, chosen)
        outcome["kinds"][kind] = {
            "n_choosing": len(choosing),
            "lenses": lenses,
            "prompts": [[one.prompt.text, one.prompt.object, one.false] for one in judged[:3]],
        }
        print(name, kind, [(row["lens"], row["layer"], row["in_top"], row["n"]) for row in lenses], flush=True)
    outcome["cpu_seconds"] = time.process_time() - started
    return outcome


def totals_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """By kind of prompt and lens, over all relations: the counts, of all prompts and of those that lead astray."""
    totals: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
    for row in rows:
        for kind, counts in row["kinds"].items():
            for lens in counts["lenses"]:
                total = totals[kind].setdefault(lens["lens"], {"all": [0, 0, 0], "astray": [0, 0, 0]})
                for which, own in (("all", lens), ("astray", lens["astray"])):
                    for place, value in enumerate((*own["in_top"], own["n"])):
                        total[which][place] += value
    return totals


def main() -> None:
    """Run, print the table and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(RELATIONS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--resume", action="store_true", help="Keep the relations that the file holds.")
    given = parser.parse_args()
    started = time.perf_counter()
    model = lrc.load_model(MODEL)
    fingerprint = lrc.models.ModelFingerprint.of(model)
    out = given.out or RESULTS / f"attribute_lens_{fingerprint.name}.json"
    rows = json.loads(out.read_text())["relations"] if given.resume and out.exists() else []
    for name in given.only:
        if name in [row["relation"] for row in rows]:
            continue
        rows.append(one_relation(model, name, seed=given.seed))
        write_result(
            out,
            kind="attribute_lens",
            results={"relations": rows, "totals": totals_of(rows)},
            settings={"seed": given.seed, "model": MODEL, "n_lre_prompts": N_LRE_PROMPTS, "top": [1, TOP],
                      "subject_layers": list(SUBJECT_LAYERS), "scales": list(SCALES), "forms": KINDS,
                      "templates": RELATIONS},
            model=fingerprint.to_dict(),
            seconds=time.perf_counter() - started,
        )  # fmt: skip
    for kind, lenses in totals_of(rows).items():
        for lens, total in lenses.items():
            print(f"{kind:12} {lens:36} top 1, top {TOP}, n: {total['all']}; led astray: {total['astray']}")


if __name__ == "__main__":
    main()
