"""Fingerprints: the same model passes, another one is refused."""

import copy
import dataclasses
import warnings

import pytest
import tiny_models
import torch
from tiny_models import D_MODEL

import lrc_tl as lrc
from lrc_tl.models.fingerprint import _distance


def test_a_model_matches_itself_without_a_warning_and_through_json(word_model):
    made = lrc.models.ModelFingerprint.of(word_model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.require_match(lrc.models.ModelFingerprint.from_dict(made.to_dict()))
    assert lrc.models.ModelFingerprint.of(word_model) == made


def test_a_small_change_of_the_weights_is_another_behaviour(word_model):
    made = lrc.models.ModelFingerprint.of(word_model)
    other = copy.deepcopy(word_model)
    for size, matches in ((1e-7, True), (0.05, False)):
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1 + size)
        found = lrc.models.ModelFingerprint.of(other)
        if matches:
            made.require_match(found)
        else:
            with pytest.raises(
                lrc.errors.FingerprintMismatch, match="residuals of a fixed prompt, relative difference"
            ):
                made.require_match(found)


@pytest.mark.parametrize("field", ["name", "n_layers", "d_model", "d_vocab", "processing", "tokenizer", "bos"])
def test_each_identifying_field_must_match(word_model, field):
    made = lrc.models.ModelFingerprint.of(word_model)
    value = getattr(made, field)
    other = dataclasses.replace(made, **{field: value + 1 if isinstance(value, int) else value + "x"})
    with pytest.raises(
        lrc.errors.FingerprintMismatch, match=f"{field} .* against .*Load the model that it was made on"
    ):
        made.require_match(other)


def test_how_it_was_run_is_warned_about(word_model):
    made = lrc.models.ModelFingerprint.of(word_model)
    other = dataclasses.replace(made, model_class="Other", torch="9.9")
    with pytest.warns(UserWarning, match=r"model_class .* against Other; torch .* against 9\.9"):
        made.require_match(other)


def test_the_policy_for_the_first_token_is_part_of_it(tmp_path):
    model = tiny_models.bridge(tiny_models.word_tokenizer(tmp_path), tmp_path)
    with_bos = lrc.models.ModelFingerprint.of(model)
    model.cfg.default_prepend_bos = False
    without = lrc.models.ModelFingerprint.of(model)
    assert (with_bos.bos, without.bos) == ("prepended", "none")
    with pytest.raises(lrc.errors.FingerprintMismatch, match="bos 'prepended' against 'none'"):
        with_bos.require_match(without)


def a_set(model, layer=1):
    """Two directions that say on which model they were made."""
    fingerprint = lrc.models.ModelFingerprint.of(model)
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection(
                vector=torch.eye(D_MODEL)[row],
                relation="r",
                object_name=name,
                hook_name=f"blocks.{layer}.hook_resid_post",
                fingerprint=fingerprint,
            )
            for row, name in enumerate(("a", "b"))
        }
    )


@pytest.fixture
def own_model(word_model):
    """A model that a test may change."""
    return copy.deepcopy(word_model)


def doubled(residual, hook):
    return residual * 2


def test_what_was_seen_under_hooks_is_not_remembered(own_model):
    before = lrc.models.ModelFingerprint.of(own_model)
    with own_model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", doubled)]):
        under = lrc.models.ModelFingerprint.of(own_model)
    assert under.behaviour != lrc.models.ModelFingerprint.of(own_model).behaviour == before.behaviour


def test_a_change_through_data_is_seen(own_model):
    made = a_set(own_model)
    made.require_model(own_model)
    weight = next(parameter for name, parameter in own_model.named_parameters() if "mlp" in name)
    before = weight.data.clone()
    weight.data.mul_(1.5)  # bumps no version counter and moves no memory
    with pytest.raises(lrc.errors.FingerprintMismatch, match="residuals of a fixed prompt"):
        made.require_model(own_model)
    with pytest.raises(lrc.errors.FingerprintMismatch, match="residuals of a fixed prompt"):
        made["a"].steer(own_model, strength=0.1).__enter__()
    weight.data.copy_(before)
    made.require_model(own_model)


def test_a_hook_on_a_module_is_part_of_the_model_while_it_is_there(own_model):
    plain = a_set(own_model)
    handle = own_model.blocks[0].register_forward_hook(
        lambda module, inputs, output: (output[0] * 2, *output[1:]) if isinstance(output, tuple) else output * 2
    )
    hooked = a_set(own_model)
    hooked.require_model(own_model)
    with pytest.raises(lrc.errors.FingerprintMismatch, match="residuals of a fixed prompt"):
        plain.require_model(own_model)
    handle.remove()
    plain.require_model(own_model)
    with pytest.raises(lrc.errors.FingerprintMismatch, match="residuals of a fixed prompt"):
        hooked.require_model(own_model)


def test_under_hooks_at_hook_points_a_set_can_be_used_with_a_warning_since_it_cannot_be_checked(own_model):
    plain = a_set(own_model)
    with own_model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", doubled)]):
        with pytest.warns(UserWarning, match="hooks are on the model, so it is not seen whether"):
            plain.require_model(own_model)
        hooked = a_set(own_model)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            hooked.require_model(own_model)
        other = dataclasses.replace(plain.fingerprint, d_vocab=49)
        with pytest.raises(lrc.errors.FingerprintMismatch, match="d_vocab"):
            other.require_model(own_model)
    with pytest.raises(lrc.errors.FingerprintMismatch, match="residuals of a fixed prompt"):
        hooked.require_model(own_model)


def test_steering_that_is_on_is_no_part_of_the_fingerprint(own_model):
    pytest.importorskip("lrc_tl.models.hooking", reason="steering acts in every context")
    made = a_set(own_model)
    plain = lrc.models.ModelFingerprint.of(own_model)
    ids = torch.tensor([[1, 5, 6]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with made["a"].steer(own_model, strength=0.5):
            assert lrc.models.ModelFingerprint.of(own_model) == plain
            alone = own_model(ids)
            with made["b"].steer(own_model, strength=0.5, where=-1):
                both = own_model(ids)
                made.classify(own_model, "w9 w2 w3", subject="w2")
                assert torch.equal(own_model(ids), both)  # the fixed prompt's pass was not taken for one of these
            assert torch.equal(own_model(ids), alone)
    assert not torch.equal(alone, both)


def test_an_entry_point_runs_the_fixed_prompt_once(own_model, monkeypatch):
    made = a_set(own_model)
    prompts = [
        lrc.Prompt(text=f"w{number} w{number + 1} w9", subject=f"w{number + 1}", object=("w20", "w21")[number % 2])
        for number in range(6)
    ]
    first, second = made["a"].add(strength=0.1), made["b"].add(strength=0.2)
    layers = {"subject_layer": 0, "object_layer": 2}
    grid = {"subject_layers": [0, 1], "object_layers": [1, 2], "solver": lrc.LowRank(rank=1), "progress": False}
    calls = []
    counted = lrc.models.ModelFingerprint._compute.__func__

    def count(cls, model):
        calls.append(model)
        return counted(cls, model)

    def steered():
        with lrc.steer(own_model, [first, second, first]):
            own_model(torch.tensor([[1, 5, 6]]))

    monkeypatch.setattr(lrc.models.ModelFingerprint, "_compute", classmethod(count))
    for call in (
        steered,
        lambda: made.classify(own_model, "w1 w2 w3", subject="w2"),
        lambda: lrc.generate(own_model, "w1 w2", steering=[first, second], max_new_tokens=2),
        lambda: lrc.generate(own_model, "w1 w2", steering=first, strengths=[0.1, 0.2, 0.3], max_new_tokens=2),
        lambda: lrc.fit_layer_grid(own_model, prompts, **grid),
        lambda: lrc.fit_concepts(own_model, prompts, method="lrc-combined", rank=1, **layers),
    ):
        calls.clear()
        call()
        assert len(calls) == 1


def test_a_fingerprint_with_missing_fields_is_refused(word_model):
    data = lrc.models.ModelFingerprint.of(word_model).to_dict()
    del data["d_model"]
    with pytest.raises(ValueError, match=r"missing are \['d_model'\]"):
        lrc.models.ModelFingerprint.from_dict(data)


def test_residuals_that_are_all_zero_match_each_other_alone():
    zeros, other = {"0": [0.0, 0.0, 0.0]}, {"0": [1.0, 0.5, -0.5]}
    assert _distance(zeros, zeros) == 0
    assert _distance(zeros, other) == float("inf")
    assert _distance(other, zeros) == pytest.approx(1.0)
