"""The Jacobian lens of TransformerLens, checked against the model and applied."""

import pytest
import tiny_models
import torch
from normed_models import normed_model
from tiny_steering import unit

import lrc_tl as lrc
from lrc_tl.errors import ModelError
from lrc_tl.models.jacobian_lens import require_jacobian_lens, to_last_layer

TEXT = "w1 w2 w30 w31 w7 w8 w9"
PROMPTS = [" ".join(f"w{(7 * start + 3 * step) % 44}" for step in range(9)) for start in range(4)]


@pytest.fixture(scope="module")
def lens_class():
    return pytest.importorskip("transformer_lens.tools.analysis").JacobianLens


@pytest.fixture(scope="module", params=["RMS", "LN"])
def bridge(request, one_thread, tmp_path_factory):
    return normed_model(f"bridge {request.param}", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def fitted(bridge, lens_class):
    return lens_class.fit(bridge, PROMPTS, corpus="words", skip_first_positions=1, show_progress=False)


def made(lens_class, layers=(0, 1), width=12, **metadata):
    generator = torch.Generator().manual_seed(2)
    jacobians = {layer: torch.randn(width, width, generator=generator) for layer in layers}
    return lens_class(jacobians, n_prompts=1, d_model=width, metadata=metadata)


def test_the_picture_is_that_of_transformer_lens_itself(bridge, fitted):
    expected = fitted.readout(bridge, TEXT, top_k=5)
    found = lrc.directions.logit_lens(bridge, TEXT, k=5, lens=fitted)
    assert found.layers == (0, 1, 2)
    for row, layer in enumerate(found.layers):
        assert torch.equal(found.ids[row], expected.lens_topk_indices[layer])


def test_a_state_says_what_transformer_lens_reads_there(bridge, fitted):
    expected = fitted.readout(bridge, TEXT, layers=[1], positions=[3], top_k=6)
    _, cache = bridge.run_with_cache(bridge.to_tokens(TEXT))
    state = cache["blocks.1.hook_resid_post"][0, 3]
    found = lrc.directions.readout(bridge, state, k=6, lens=fitted, layer=1)
    assert [word.token for word in found.top] == expected.lens_topk_indices[1][0].tolist()
    logits = torch.tensor([word.logit for word in found.top])
    torch.testing.assert_close(logits, expected.lens_topk_values[1][0], rtol=1e-4, atol=1e-4)
    assert found.label == "hidden state, Jacobian lens of layer 1"


def test_a_direction_goes_through_the_jacobian_of_its_layer(bridge, fitted):
    def direction(vector, hook):
        return lrc.ConceptDirection.from_unscaled(vector, relation="r", object_name="o", hook_name=hook)

    here = direction(unit(4), "blocks.0.hook_resid_post")
    there = direction(fitted.jacobians[0].double() @ unit(4), "blocks.2.hook_resid_post")
    found, expected = here.readout(bridge, lens=fitted), there.readout(bridge)
    assert [word.token for word in found.top] == [word.token for word in expected.top]
    at_last = there.readout(bridge, lens=fitted)
    assert [word.token for word in at_last.top] == [word.token for word in expected.top]
    with pytest.raises(ValueError, match=r"reads at hook_resid_post, but the direction is at hook_resid_mid"):
        direction(unit(4), "blocks.0.hook_resid_mid").readout(bridge, lens=fitted)


def test_a_hooked_transformer_with_raw_weights_takes_it_too(one_thread, tmp_path, lens_class):
    tiny_models.require_hooked_transformer()
    model = normed_model("hooked_transformer RMS", tmp_path)
    lens = made(lens_class)
    acts = torch.stack([unit(0), unit(1)])
    torch.testing.assert_close(to_last_layer(model, lens, acts, layer=-2), acts @ lens.jacobians[1].double().T)
    assert torch.equal(to_last_layer(model, lens, acts, layer=2), acts)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"width": 13}, "has width 13, the model 12"),
        ({"layers": (1, 2)}, r"has the layers \[2\].* are 0 to 1"),
        ({"layers": (0, 7)}, r"has the layers \[7\]"),
        ({"model_name": "gpt2"}, "was fitted on 'gpt2', but this model is"),
        ({"target_layer": 1}, "leads to layer 1, but a readout needs one to the last layer, 2"),
    ],
)
def test_a_lens_of_another_model_is_refused(bridge, lens_class, given, said):
    with pytest.raises(ValueError, match=said):
        require_jacobian_lens(bridge, made(lens_class, **given))


def test_the_folder_of_a_model_does_not_matter(bridge, lens_class):
    name = bridge.cfg.model_name.split("/")[-1]
    accepted = []
    for given in (f"some/owner/{name}", f"some/owner/{name}-2"):
        try:
            require_jacobian_lens(bridge, made(lens_class, model_name=given))
        except ValueError:
            continue
        accepted.append(given)
    assert accepted == [f"some/owner/{name}"]


def test_a_layer_that_the_lens_has_not_is_refused(bridge, lens_class):
    with pytest.raises(ValueError, match=r"has no layer 0; it has \[1\]"):
        to_last_layer(bridge, made(lens_class, layers=(1,)), unit(), layer=0)


def test_a_model_with_folded_weights_is_refused(one_thread, tmp_path, lens_class):
    tiny_models.require_hooked_transformer()
    model = normed_model("hooked_transformer LNPre", tmp_path)
    with pytest.raises(ModelError, match="this model's weights are folded"):
        require_jacobian_lens(model, made(lens_class))
