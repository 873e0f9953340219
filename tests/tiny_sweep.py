"""Sweeps on tiny models: their settings, a folder that workers can load a model from, and frames to compare."""

import json

import pandas as pd
import tiny_models
from spoken import spoken_relations

import lrc_tl as lrc
from lrc_tl.experiments.sweep_rows import KEY

SETTINGS = lrc.SweepSettings(
    methods=("lrc", "svm"), subject_layers=(0, 1), object_layers=2, ranks=(2, 4), betas=(0.3, 0.8), seeds=(1, 2),
    shots=0, max_lre_prompts=4,
)  # fmt: skip


def sorted_frame(result):
    """The rows in the order of their key, whatever the order in which units finished."""
    return result.to_frame().sort_values(list(KEY), ignore_index=True)


def assert_same_rows(result, other, *, rtol=0.0):
    pd.testing.assert_frame_equal(
        sorted_frame(result), sorted_frame(other), check_exact=not rtol, **({"rtol": rtol} if rtol else {})
    )


def model_folder(place, *, n_relations=2):
    """A Hugging Face folder with a tiny model, and relations that it knows, in a folder of their own."""
    tokenizer = tiny_models.word_tokenizer(place / "tokenizer")
    tiny_models.bridge(tokenizer, place / "model")
    model = lrc.load_model(place / "model")
    relations = spoken_relations(model, n_relations)
    (place / "relations").mkdir()
    for relation in relations:
        samples = [{"subject": fact.subject, "object": fact.object} for fact in relation.facts]
        templates = list(relation.templates)
        content = {
            "name": relation.name, "prompt_templates": templates, "prompt_templates_zs": templates,
            "samples": samples,
        }  # fmt: skip
        (place / "relations" / f"{relation.name}.json").write_text(json.dumps(content), encoding="utf-8")
    found, errors = lrc.load_relations(place / "relations")
    assert not errors
    return place / "model", place / "relations", tuple(found.values())
