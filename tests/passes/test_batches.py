"""A batch never changes a row: what every public entry point says of a row is what it says of it alone.

Rows of several lengths, which end with the end token or hold special tokens inside, on tokenizers that pad with
their end or beginning token, and that put none in front; on models of both classes. `entry_points` lists the uses.
"""

import inspect
from contextlib import nullcontext

import pytest
import tiny_models
import torch
from entry_point_rows import BATCHES, PROMPTS, ROWS, TEXTS, close, continuation, padded_ids
from entry_points import ENTRIES, EXCEPTIONS, WHOLE
from public_names import taking_a_model
from reference.finite_differences import central_differences
from tiny_steering import adding

import lrc_tl as lrc
from lrc_tl.models.fingerprint import fingerprints_once
from lrc_tl.passes.batches import picked_before_unembedding

KINDS = (
    "pads with its end token",
    "pads with its beginning token",
    "no beginning token, pads with its end token",
)


@pytest.fixture(scope="module", params=KINDS)
def model(request, class_of_model, tmp_path_factory):
    close.narrow = class_of_model == "bridge"
    return tiny_models.model_with(class_of_model, request.param, tmp_path_factory.mktemp("model"))


def steered(model):
    return lrc.steer(model, [adding(strength=5.0), adding(where=-1)])


BLOCKS = {"not steered": lambda model: nullcontext(), "steered everywhere and at the end": steered}


def test_every_public_function_that_takes_a_model_is_listed_or_excused():
    listed = {name for one in ENTRIES.values() for name in one.names} | set(WHOLE)
    assert not listed & set(EXCEPTIONS)
    assert taking_a_model() == listed | set(EXCEPTIONS)


# Inside a steering on the first tokenizer alone: `test_padding` has steered passes and generations of them all.
@pytest.mark.parametrize(
    ("model", "use", "block"),
    [
        (kind, use, block)
        for kind in KINDS
        for use, used in ENTRIES.items()
        for block in BLOCKS
        if block == "not steered" or (used.in_blocks and kind == KINDS[0])
    ],
    indirect=["model"],
    scope="module",
)
def test_a_row_is_the_same_alone_and_in_every_batch(model, use, block):
    used, alone = ENTRIES[use], {}
    with BLOCKS[block](model), fingerprints_once():
        for row in ROWS:
            (alone[row],) = used.run(model, (row,))
        for side, batch in BATCHES.items():
            model.tokenizer.padding_side = side
            found = used.run(model, batch)
            assert len(found) == len(batch)
            for row, got in zip(batch, found, strict=True):
                close(got, alone[row], path=f"row {row} of {batch}, {side}")


def test_a_jacobian_inside_a_block_is_that_of_the_steered_model(model):
    tokens = lrc.relations.tokenize_prompt(model, PROMPTS[2])
    step, tolerance = (0.02, 0.02) if close.narrow else (1e-3, 1e-6)
    with steered(model):
        found = lrc.lre.subject_object_jacobian(model, tokens, subject_layer=0, object_layer=2)
        by_hand = central_differences(
            model, tokens, found.subject, torch.eye(12).to(found.subject)[:3], subject_layer=0, object_layer=2,
            n_positions=len(tokens.object_ids), step=step,
        )  # fmt: skip
    torch.testing.assert_close(found.jacobian[:, :3], by_hand, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("where", ["all", "generated", -1])
def test_the_models_own_generate_inside_a_block_goes_on_as_each_text_alone(model, where):
    texts = [text for text in TEXTS if not text.startswith("<bos>")]  # as a string it gets a second one
    steering = adding(where=where)
    alone = [lrc.generate(model, text, steering=steering, max_new_tokens=3)[0].token_ids for text in texts]
    takes_mask = "attention_mask" in inspect.signature(type(model).generate).parameters
    ids, mask = padded_ids(model, [model.to_tokens(text)[0].tolist() for text in texts], "left")
    given = (
        {"ids and a mask": (ids, {"attention_mask": mask})}
        if takes_mask
        else {"ids": (ids, {"padding_side": "left"})}
    )
    given["strings"] = (texts, {"padding_side": "left"})
    for cache in (True, False):
        for name, (prompts, options) in given.items():
            with steering.on(model):
                made = model.generate(
                    prompts, max_new_tokens=3, do_sample=False, stop_at_eos=False, verbose=False,
                    use_past_kv_cache=cache, return_type="tokens", **options,
                )  # fmt: skip
            for row, own in zip(made[:, -3:], alone, strict=True):
                assert row[: len(own)].tolist() == own.tolist(), (name, cache)


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_that_look_padded_are_refused_whatever_side_the_tokenizer_pads_on(model, side, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "padding_side", side)
    ids, _ = padded_ids(model, [model.to_tokens(text)[0].tolist() for text in TEXTS[:2]])
    with pytest.raises(ValueError, match="nothing says whether it is padding; give attention_mask"):
        lrc.directions.token_mask(model, ids, bos=True)
    with adding().on(model), pytest.raises(ValueError, match="give a list of strings, or attention_mask"):
        model(ids)


def test_a_text_that_begins_with_the_pad_token_goes_on_as_alone_or_is_refused(model):
    texts = ["<eos> w3 w4", "w1"]
    taken = type(model).__name__ == "HookedTransformer" and not model.cfg.default_prepend_bos
    for given in (texts, texts[:1]):
        if taken:
            with pytest.raises(ValueError, match="takes '<eos>' in front, with which the tokenizer pads"):
                lrc.generate(model, given, steering=adding(), max_new_tokens=3)
    if not taken:
        made = lrc.generate(model, texts, steering=adding(), max_new_tokens=3)
        for text, one in zip(texts, made, strict=True):
            (alone,) = lrc.generate(model, text, steering=adding(), max_new_tokens=3)
            close(continuation(one), continuation(alone))


def test_places_that_are_no_table_are_refused():
    with pytest.raises(TypeError, match=r"`index` is a tensor of int64 and shape \(3,\); it must be Int"):
        picked_before_unembedding(torch.arange(3))
