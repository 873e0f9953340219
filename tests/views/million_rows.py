"""A made-up sweep of 1,050,000 rows: 25 relations, 2 seeds, 4 methods, 15 by 10 layers, 5 ranks, 2 betas."""

import itertools

import numpy as np
import pandas as pd

from lrc_tl.views.tidy import COLUMNS

METRICS = ("causality", "hard_causality", "kl_elsewhere")


def million_rows(n_relations: int = 25) -> pd.DataFrame:
    """As `SweepResult.to_frame` gives them: words as str, whole numbers as Int64."""
    cells = pd.DataFrame(
        itertools.product(
            [f"relation {n}" for n in range(n_relations)],
            (0, 1),
            ("lrc", "lrc-map", "lrc-final", "svm"),
            range(4, 19),
            range(19, 29),
            (16, 32, 64, 128, 256),
        ),
        columns=["relation", "seed", "method", "subject_layer", "object_layer", "rank"],
    )
    readings = [{"metric": "accuracy", "reading": "plain"}]
    edits = [{"metric": m, "beta": b, "place": "all"} for m in METRICS for b in (0.01, 0.05)]
    kinds = pd.DataFrame([*readings, *edits])
    rows = cells.merge(kinds, how="cross")
    rng = np.random.default_rng(0)
    rows["value"] = rng.random(len(rows))
    rows["n"] = rows["n_facts"] = 30
    frame = rows.reindex(columns=list(COLUMNS))
    whole = ("seed", "subject_layer", "object_layer", "rank", "n_lre_prompts", "shots", "count", "n", "n_facts")
    return frame.astype(dict.fromkeys(whole, "Int64"))
