"""The exact Jacobian against central finite differences and at equal layers."""

import pytest
import torch

import lrc_tl as lrc

PROMPT = lrc.Prompt(text="cat is", subject="cat", object="x")


def tokens(subject_position, n_object):
    ids = torch.randint(0, 50, (9,), generator=torch.Generator().manual_seed(2)).tolist()
    return lrc.TokenizedPrompt(
        prompt=PROMPT,
        text_ids=tuple(ids[:6]),
        object_ids=tuple(ids[6 : 6 + n_object]),
        subject_position=subject_position,
    )


def object_after_replacing(model, at, subject, layers, aggregation):
    kept = []

    def replace(residual, hook):
        residual = residual.clone()
        residual[0, at.subject_position] = subject
        return residual

    hooks = [
        (f"blocks.{layers[0]}.hook_resid_post", replace),
        (f"blocks.{layers[1]}.hook_resid_post", lambda residual, hook: kept.append(residual[0].clone())),
    ]
    model.run_with_hooks(torch.tensor([at.input_ids]), fwd_hooks=hooks)
    positions = list(at.object_positions)[: None if aggregation == "mean" else 1]
    return kept[0][positions].mean(0)


@pytest.mark.parametrize("subject_position", [0, 3])
@pytest.mark.parametrize(("n_object", "aggregation"), [(1, "mean"), (3, "mean"), (3, "first_token")])
@pytest.mark.parametrize("layers", [(0, 2), (1, 2), (0, 1)])
def test_the_jacobian_equals_central_differences(tiny_model, subject_position, n_object, aggregation, layers):
    at = tokens(subject_position, n_object)
    got = lrc.subject_object_jacobian(
        tiny_model, at, subject_layer=layers[0], object_layer=layers[1], object_aggregation=aggregation
    )
    step = 1e-5
    columns = []
    for axis in torch.eye(12, dtype=torch.float64):
        ends = [
            object_after_replacing(tiny_model, at, got.subject + sign * step * axis, layers, aggregation)
            for sign in (1, -1)
        ]
        columns.append((ends[0] - ends[1]) / (2 * step))
    expected = torch.stack(columns, dim=1)
    assert expected.norm() > 0.01
    assert (got.jacobian - expected).norm() / expected.norm() < 1e-6
    torch.testing.assert_close(
        got.object, object_after_replacing(tiny_model, at, got.subject, layers, aggregation)
    )


def test_equal_layers_and_positions_give_the_identity(tiny_model):
    got = lrc.subject_object_jacobian(tiny_model, tokens(5, 1), subject_layer=1, object_layer=1)
    assert torch.equal(got.jacobian, torch.eye(12, dtype=torch.float64))
    assert torch.equal(got.object, got.subject)


def test_negative_layers_count_from_the_end_and_inference_mode_does_not_zero_the_gradient(tiny_model):
    expected = lrc.subject_object_jacobian(tiny_model, tokens(2, 1), subject_layer=0, object_layer=2)
    with torch.inference_mode():
        got = lrc.subject_object_jacobian(tiny_model, tokens(2, 1), subject_layer=-3, object_layer=-1)
    assert torch.equal(got.jacobian, expected.jacobian)


def test_no_hook_is_left_behind(tiny_model):
    lrc.subject_object_jacobian(tiny_model, tokens(2, 1), subject_layer=0, object_layer=2)
    assert not any(point.fwd_hooks for point in tiny_model.hook_dict.values())


def test_an_object_that_is_read_before_the_subject_is_refused(tiny_model):
    at = lrc.TokenizedPrompt(prompt=PROMPT, text_ids=(1, 2, 3), object_ids=(4,), subject_position=5)
    with pytest.raises(ValueError, match="read at position 2, before the subject at 5"):
        lrc.subject_object_jacobian(tiny_model, at, subject_layer=0, object_layer=2)


@pytest.mark.parametrize(
    ("layers", "message"),
    [((0, 3), "layer 3 is outside the model; allowed are -3 to 2"), ((2, 1), "object layer 1 lies below")],
)
def test_bad_layers_are_refused(tiny_model, layers, message):
    with pytest.raises(ValueError, match=message):
        lrc.subject_object_jacobian(tiny_model, tokens(2, 1), subject_layer=layers[0], object_layer=layers[1])
