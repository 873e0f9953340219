"""Rows for the uses in `entry_points`: texts, edits and directions, how they are padded and compared."""

import torch
from tiny_steering import HOOK, unit
from torch import Tensor

import lrc_tl as lrc
from lrc_tl.passes.batches import whole_text_ids
from lrc_tl.passes.padding import own_tokens

LAYERS = {"subject_layer": 0, "object_layer": 1}
OBJECTS = ("w9", "w10 w11", "w12 w13 w14", "w15", "w16 w17")
PROMPTS = tuple(
    lrc.Prompt(text=text, subject=subject, object=name, relation="said", relation_objects=OBJECTS, joint=joint)
    for (text, subject, joint), name in zip(
        (
            ("w1 w2 w3 <eos>", "w2", " "),
            ("w4 <eos>", "w4", " "),
            ("w5 <bos> w6 w7 <eos> w8 <eos> ", "w6 w7", ""),
            ("w1 w2 w30 w31 w32 w33 w34 w35 w36 w37", "w2", " "),
            ("<bos> w20 w21", "w20", " "),
        ),
        OBJECTS,
        strict=True,
    )
)
TEXTS = tuple(prompt.text.strip() for prompt in PROMPTS)
SUBJECTS = tuple(prompt.subject for prompt in PROMPTS)
TARGETS = ("w10 w11", "w9", "w15", "w12 w13 w14", "w9")
EDITS = tuple(
    lrc.evaluation.Edit(prompt=prompt, target=target) for prompt, target in zip(PROMPTS, TARGETS, strict=True)
)
NEUTRAL = ("w30 w3 w17 w8 w21 <eos>", "w5 w6 <bos> w11 w4 w25 w1 w40 w2 <eos> w7 <eos>")
ROWS = (1, 2, 3, 4)
BATCHES = {"right": (1, 2, 3, 4), "left": (3, 1, 2, 1)}


def differences(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(EDITS), 12, generator=generator, dtype=torch.float64) * 0.3


def direction(seed=0, name="w9"):
    return lrc.ConceptDirection.from_unscaled(unit(seed), relation="said", object_name=name, hook_name=HOOK)


def concepts():
    return lrc.ConceptSet({name: direction(seed, name) for seed, name in enumerate(OBJECTS)})


def lre(object_layer=1, aggregation="mean"):
    """A planted one, the same for every model."""
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    return {
        "weight": weight, "bias": weight[0], "subject_layer": 0, "object_layer": object_layer,
        "object_aggregation": aggregation, "n_prompts": 1, "prompts_hash": "", "relation": "said",
    }  # fmt: skip


def planted(model, **options):
    return lrc.LinearRelationalEmbedding(**lre(**options), fingerprint=lrc.models.ModelFingerprint.of(model))


def of(rows, values):
    return [values[row] for row in rows]


def amounts(rows):
    return torch.tensor(of(rows, [9.0, 0.0, -4.0, 20.0, 3.0]))


def places(rows):
    return of(rows, [1, 0, 3, -2, 1])


def continuation(one):
    return [one.text, one.token_ids, one.log_probs, one.scores.nan_to_num(7.0), one.kl]


def padded(model, rows, side):
    return padded_ids(model, [list(whole_text_ids(model, TEXTS[row])) for row in rows], side)


def padded_ids(model, sequences, side="right"):
    width = max(map(len, sequences))
    mask = own_tokens(list(map(len, sequences)), width, side=side, device="cpu")
    ids = torch.full((len(sequences), width), model.tokenizer.pad_token_id)
    for row, own in enumerate(sequences):
        ids[row, mask[row]] = torch.tensor(own)
    return ids, mask.long()


def residuals(model, ids, mask):
    kept = []
    with model.hooks(fwd_hooks=[(HOOK, lambda residual, hook: kept.append(residual.clone()))]):
        model(ids, attention_mask=mask)
    return kept[0]


def close(got, expected, *, path=""):
    """Equal up to rounding: 1e-9 in float64, 1e-4 in float32; whatever is no real number, exactly."""
    if isinstance(expected, float):
        expected = torch.tensor(expected, dtype=torch.float64)
    if isinstance(expected, Tensor) and expected.is_floating_point():
        got = torch.as_tensor(got, dtype=torch.float64)
        tolerance = 1e-4 if close.narrow or expected.dtype == torch.float32 else 1e-9
        torch.testing.assert_close(
            got,
            expected.double(),
            rtol=tolerance,
            atol=tolerance,
            equal_nan=True,
            msg=lambda text: f"{path}: {text}",
        )
    elif isinstance(expected, Tensor):
        assert torch.equal(got, expected), path
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected), path
        for number, (one, other) in enumerate(zip(got, expected, strict=True)):
            close(one, other, path=f"{path}[{number}]")
    else:
        assert got == expected, path
