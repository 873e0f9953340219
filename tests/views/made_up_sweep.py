"""Tidy rows of a sweep that was never run, with known best cells."""

import numpy as np
import pandas as pd

from lrc_tl.views.tidy import COLUMNS

NULLS = dict.fromkeys(COLUMNS)


def sweep_frame(
    *,
    relations=("city in country", "animal class", "food kind"),
    seeds=(0, 1),
    methods=("lrc", "lrc-map", "svm"),
    subject_layers=range(4, 9),
    object_layers=(10, 12, 14),
    ranks=(16, 64, 128),
    betas=(0.01, 0.05, 0.2),
    validation=False,
    seed=0,
):
    """Accuracy is best at subject layer 6, object layer 12, rank 64; edits grow with beta and break texts."""
    rng = np.random.default_rng(seed)
    rows = []
    for relation_place, relation in enumerate(relations):
        for one_seed in seeds:
            for method_place, method in enumerate(methods):
                has_lre = method.startswith("lrc")
                for subject in subject_layers:
                    for object_ in [o for o in object_layers if o > subject] if has_lre else [None]:
                        for rank in ranks if method == "lrc" else [None]:
                            key = {**NULLS, "relation": relation, "seed": one_seed, "method": method}
                            key |= {"subject_layer": subject, "object_layer": object_, "rank": rank}
                            key |= {"n_lre_prompts": 10 if has_lre else None, "shots": 4}
                            height = 0.78 - 0.04 * method_place + 0.05 * (relation_place - 1)
                            height -= 0.05 * abs(subject - 6) + (0.04 * abs(object_ - 12) if has_lre else 0)
                            height -= 0.05 * abs(np.log2(rank / 64)) if rank else 0
                            rows += measurements(key, float(np.clip(height, 0.05, 0.95)), betas, rng, validation)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def measurements(key, height, betas, rng, validation):
    """The rows of one cell: accuracy by two readings, and edits at each beta."""
    n = 30
    count = int(rng.binomial(n, height))
    rows = [
        {**key, "reading": reading, "metric": "accuracy", "value": min(n, count + more) / n, "n": n, "n_facts": n}
        for reading, more in (("plain", 0), ("centred", 2))
    ]
    if validation:
        rows.append({**key, "reading": "plain", "metric": "validation_accuracy", "value": height, "n": 9})
    for beta in betas:
        soft = float(1 - np.exp(-beta * 30) * (1 - height / 2))
        hard = float(height * 4 * beta / (0.05 + beta) * np.exp(-beta * 6) / 2)
        for metric, value in (("causality", soft), ("hard_causality", hard), ("kl_elsewhere", 40 * beta**1.5)):
            rows.append({**key, "beta": beta, "place": "all", "metric": metric, "value": value, "n": 20})
    return rows
