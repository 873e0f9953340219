"""Fingerprints: the same model passes, another one is refused."""

import copy
import dataclasses
import warnings

import pytest
import tiny_models
import torch

import lrc_tl as lrc
from lrc_tl.fingerprint import _distance


def test_a_model_matches_itself_without_a_warning_and_through_json(word_model):
    made = lrc.ModelFingerprint.of(word_model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.require_match(lrc.ModelFingerprint.from_dict(made.to_dict()))
    assert lrc.ModelFingerprint.of(word_model) is made


def test_a_small_change_of_the_weights_is_another_behaviour(word_model):
    made = lrc.ModelFingerprint.of(word_model)
    other = copy.deepcopy(word_model)
    for size, matches in ((1e-7, True), (0.05, False)):
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1 + size)
        found = lrc.ModelFingerprint.of(other)
        if matches:
            made.require_match(found)
        else:
            with pytest.raises(lrc.FingerprintMismatch, match="residuals of a fixed prompt, relative difference"):
                made.require_match(found)


@pytest.mark.parametrize("field", ["name", "n_layers", "d_model", "d_vocab", "processing", "tokenizer", "bos"])
def test_each_identifying_field_must_match(word_model, field):
    made = lrc.ModelFingerprint.of(word_model)
    value = getattr(made, field)
    other = dataclasses.replace(made, **{field: value + 1 if isinstance(value, int) else value + "x"})
    with pytest.raises(lrc.FingerprintMismatch, match=f"{field} .* against .*Load the model that it was made on"):
        made.require_match(other)


def test_how_it_was_run_is_warned_about(word_model):
    made = lrc.ModelFingerprint.of(word_model)
    other = dataclasses.replace(made, model_class="Other", torch="9.9")
    with pytest.warns(UserWarning, match=r"model_class .* against Other; torch .* against 9\.9"):
        made.require_match(other)


def test_the_policy_for_the_first_token_is_part_of_it(tmp_path):
    model = tiny_models.bridge(tiny_models.word_tokenizer(tmp_path), tmp_path)
    with_bos = lrc.ModelFingerprint.of(model)
    model.cfg.default_prepend_bos = False
    without = lrc.ModelFingerprint.of(model)
    assert (with_bos.bos, without.bos) == ("prepended", "none")
    with pytest.raises(lrc.FingerprintMismatch, match="bos 'prepended' against 'none'"):
        with_bos.require_match(without)


def test_what_was_seen_under_hooks_is_not_remembered(tmp_path):
    model = tiny_models.bridge(tiny_models.word_tokenizer(tmp_path), tmp_path)
    with model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", lambda residual, hook: residual * 2)]):
        under = lrc.ModelFingerprint.of(model)
    assert under.behaviour != lrc.ModelFingerprint.of(model).behaviour


def test_a_fingerprint_with_missing_fields_is_refused(word_model):
    data = lrc.ModelFingerprint.of(word_model).to_dict()
    del data["d_model"]
    with pytest.raises(ValueError, match=r"missing are \['d_model'\]"):
        lrc.ModelFingerprint.from_dict(data)


def test_residuals_that_are_all_zero_match_each_other_alone():
    zeros, other = {"0": [0.0, 0.0, 0.0]}, {"0": [1.0, 0.5, -0.5]}
    assert _distance(zeros, zeros) == 0
    assert _distance(zeros, other) == float("inf")
    assert _distance(other, zeros) == pytest.approx(1.0)
