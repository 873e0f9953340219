"""Does free text speak of a concept that is added? Greedy continuations of neutral openings, 20 tokens.

    .venv/bin/python benchmarks/verdict/free_text.py --parts PARTS [--relations city_in_country animal_class ...]

For each object and method one strength is chosen on five openings: the one that names the object most often while
the perplexity of neutral texts stays below twice the unsteered one, the smallest of equal ones. Then ten other
openings are gone on with. An opening counts where the object or one of its training subjects is named, as a whole
word; a continuation in which a name comes three times in a row does not count. Each relation is kept in PARTS and
skipped the next time. Writes `benchmarks/results/verdict_free_text_<model>.json`.
"""

import argparse
import json
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import lrc_tl as lrc
from lrc_tl.relations.words import caseless, find_word
from lrc_tl.storage.json_results import write_result
from lrc_tl.tuning.neutral_effects import NEUTRAL_TEXTS, neutral_effects

RESULTS = Path(__file__).parents[1] / "results"
METHODS = ("lrc-map-combined", "lrc", "mean-difference")
CHOOSING = (
    "Yesterday evening I read that",
    "On the second page of the letter",
    "When the train stopped again,",
    "The first thing one notices is",
    "Everyone at the table agreed that",
)
OPENINGS = (
    "My friend told me a long story about",
    "In the middle of the room there was",
    "It was raining, and we talked about",
    "The teacher wrote on the board:",
    "What I like most is",
    "After the meeting she began to speak of",
    "The old book on the shelf describes",
    "He opened the box and found",
    "The next chapter is about",
    "If you ask me, the best of all is",
)
STRENGTHS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)
MOST_RATIO, NEW_TOKENS, SPLIT_SEED = 2.0, 20, 0
LAYERS = {"gemma-3-270m": (9, 13), "smollm2-135m": (16, 20)}
RANK, LRE_PROMPTS, MAX_FACTS = 64, 3, 60


def named(text: str, names: Sequence[str]) -> bool:
    """Whether one of the names is in the text as a whole word, and none three times in a row."""
    plain = caseless(text)
    for name in names:
        again = rf"(?:\b{re.escape(caseless(name))}\b[\W_]*){{3}}"
        if re.search(again, plain):
            return False
    return any(find_word(plain, caseless(name)) is not None for name in names)


def of_direction(model: Any, direction: lrc.ConceptDirection, names: Sequence[str]) -> dict[str, Any]:
    """The strength that is chosen, and what the ten openings give with it."""
    effects = neutral_effects(
        model, [direction.add(strength=1.0)], NEUTRAL_TEXTS, strengths=STRENGTHS, new_tokens=None
    )
    allowed = [
        strength
        for strength, effect in zip(STRENGTHS, effects, strict=True)
        if effect.perplexity_ratio < MOST_RATIO
    ]
    if not allowed:
        return {"strength": None, "ratio": None, "shares": {}, "named": [], "texts": []}
    tried = lrc.generate(model, CHOOSING, steering=direction, strengths=allowed, max_new_tokens=NEW_TOKENS)
    shares = {
        strength: mean(named(of.text, names) for of in tried[place :: len(allowed)])
        for place, strength in enumerate(allowed)
    }
    chosen = max(allowed, key=lambda strength: (shares[strength], -strength))
    texts = lrc.generate(model, OPENINGS, steering=direction, strengths=[chosen], max_new_tokens=NEW_TOKENS)
    return {
        "strength": chosen,
        "ratio": effects[STRENGTHS.index(chosen)].perplexity_ratio,
        "shares": shares,
        "named": [named(of.text, names) for of in texts],
        "texts": [of.text for of in texts],
    }


def of_relation(model: Any, name: str, short: str, most: int) -> list[dict[str, Any]]:
    """Every object of a relation with every method."""
    from lrc_tl.relations.sampling import splittable_sample

    subject_layer, object_layer = LAYERS[short]
    train, _ = lrc.load_relation(name).split(seed=SPLIT_SEED)
    train = splittable_sample(train, MAX_FACTS // 2, seed=0)
    known = lrc.filter_known(model, train.prompts(shots=4, seed=0), progress=False)
    subjects = defaultdict(list)
    for fact in train.facts:
        subjects[fact.object].append(fact.subject)
    unsteered = lrc.generate(model, OPENINGS, max_new_tokens=NEW_TOKENS)
    rows = []
    settings = lrc.FitSettings(max_lre_prompts=LRE_PROMPTS)
    for method in METHODS:
        places = {} if method == "mean-difference" else {"object_layer": object_layer}
        rank = {"rank": RANK} if method == "lrc" else {}
        concepts = lrc.fit_concepts(
            model, known.prompts, method=method, subject_layer=subject_layer, settings=settings, progress=False,
            **places, **rank,
        )  # fmt: skip
        for object_ in list(concepts)[:most]:
            names = [object_, *subjects[object_]]
            row = {"relation": name, "method": method, "object": object_}
            row |= of_direction(model, concepts[object_], names)
            row["named_unsteered"] = [named(of.text, names) for of in unsteered]
            rows.append(row)
            print(name, method, object_, row["strength"], sum(row["named"]), flush=True)
    return rows


def main() -> None:
    """Run the relations that are missing, then write all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--model", default="packaged:gemma-3-270m")
    parser.add_argument("--relations", nargs="*", default=["city_in_country", "animal_class", "food_kind"])
    parser.add_argument("--objects", type=int, default=8, help="at most so many of each relation")
    given = parser.parse_args()
    short = given.model.removeprefix("packaged:")
    parts, started = given.parts / f"free_text_{short}", time.perf_counter()
    parts.mkdir(parents=True, exist_ok=True)
    model = None
    for name in given.relations:
        path = parts / f"{name}.json"
        if not path.exists():
            model = lrc.load_model(given.model) if model is None else model
            path.write_text(json.dumps(of_relation(model, name, short, given.objects)), encoding="utf-8")
    rows = [row for path in sorted(parts.glob("*.json")) for row in json.loads(path.read_text())]
    table = [
        {
            "method": method,
            "named": mean(
                float(hit) for row in rows if row["method"] == method for hit in row["named"] or [False] * 10
            ),
            "named_unsteered": mean(
                float(h) for row in rows if row["method"] == method for h in row["named_unsteered"]
            ),
            "n_objects": sum(row["method"] == method for row in rows),
            "without_a_strength": sum(row["method"] == method and row["strength"] is None for row in rows),
        }
        for method in METHODS
    ]
    for row in table:
        print(row)
    write_result(
        RESULTS / f"verdict_free_text_{short}.json",
        kind="verdict_free_text",
        results={"table": table, "openings": OPENINGS, "choosing": CHOOSING, "rows": rows},
        settings={
            "command": f"python benchmarks/verdict/free_text.py --model {given.model}",
            "strengths": STRENGTHS,
            "lre_prompts": LRE_PROMPTS,
            "most_perplexity_ratio": MOST_RATIO,
        },
        model=None,
        seconds=time.perf_counter() - started,
    )


if __name__ == "__main__":
    main()
