"""A small sweep by two processes on the device, beside the same sweep in one process on the CPU."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

import lrc_tl as lrc

from .comparisons import Difference, Layers
from .models import N_WORDS, Shape, random_llama, word_tokenizer

SUBJECTS = 800
LEAST_OBJECTS, LEAST_SUBJECTS, MOST_SUBJECTS = 2, 6, 15
VALUES = 0.1
"""Tolerance of the mean difference of a row's value: most are shares of a few facts, one of which may turn."""


def saved_model(shape: Shape, folder: Path) -> Path:
    """A folder that `load_model` reads, with the weights of `random_llama`."""
    random_llama(shape, device="cpu").save_pretrained(folder)
    word_tokenizer(folder)
    return folder


def spoken_relation(model: Any) -> lrc.Relation:
    """What the random model itself says after subjects of one word, as a relation that it knows.

    Raises:
        ValueError: it says too few words more than once, whatever follows the subjects.
    """
    for tail in range(40):
        texts = [f"w{number} w{tail} w{tail + 1}" for number in range(SUBJECTS)]
        with torch.no_grad():
            logits = torch.cat(
                [model(model.to_tokens(texts[row : row + 100]))[:, -1] for row in range(0, SUBJECTS, 100)]
            )
        answers = [model.tokenizer.decode(int(token)) for token in logits.argmax(-1)]
        often = [
            word
            for word, count in Counter(answers).most_common()
            if word.startswith("w") and count >= LEAST_SUBJECTS
        ]
        if len(often) < LEAST_OBJECTS:
            continue
        pairs = [
            (f"w{number}", word)
            for word in often[:4]
            for number in [row for row, said in enumerate(answers) if said == word and f"w{row}" != word][
                :MOST_SUBJECTS
            ]
        ]
        return lrc.Relation.from_pairs("spoken", pairs, templates=[f"{{}} w{tail} w{tail + 1}"])
    raise ValueError(f"the model of {N_WORDS} words says none of them {LEAST_SUBJECTS} times; take a wider one")


def two_processes(shape: Shape, folder: Path, *, device: str) -> tuple[Difference, dict[str, Any]]:
    """How far the sweep's values lie from the CPU's, on average, and what was run."""
    layers = Layers.of(shape.n_layers)
    path = saved_model(shape, folder / "swept")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = lrc.load_model(str(path))
        relation = spoken_relation(reference)
        settings = lrc.SweepSettings(
            subject_layers=(layers.subject,),
            object_layers=(layers.object,),
            ranks=(4, 8),
            betas=(0.1,),
            methods=("lrc", "svm"),
            seeds=(0, 1),
            shots=(0,),
            max_lre_prompts=(3,),
            validation=0.0,
            n_side_effects=0,
            metrics=("accuracy", "causality"),
        )
        quiet: dict[str, Any] = {"others": [], "progress": False}
        expected = lrc.run_sweep(reference, [relation], settings=settings, out=folder / "one", **quiet).to_frame()
        swept = lrc.run_sweep(
            str(path), [relation], settings=settings, out=folder / "two", devices=[device, device], **quiet
        ).to_frame()
    columns = list(expected.columns)
    keys = columns[: columns.index("metric") + 1]
    rows = expected.merge(swept, on=keys, how="outer", suffixes=("_cpu", "_device"), indicator=True)
    matched = bool((rows["_merge"] == "both").all()) and len(rows) == len(expected)
    apart = float((rows["value_cpu"] - rows["value_device"]).abs().mean()) if matched else float("nan")
    about = {"rows": len(swept), "facts": len(relation.facts), "objects": len(relation.objects)}
    return Difference(name="sweep by two processes", value=apart, tolerance=VALUES), about
