import pytest
import tiny
import torch


@pytest.fixture(autouse=True)
def one_thread(request):
    """Tiny models are ten times slower when their threads wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if request.node.get_closest_marker("real_model") else 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_model():
    """A random rotary HookedTransformer in float64; no tokenizer."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=3, d_model=12, n_ctx=32, d_head=6, n_heads=2, d_mlp=20, d_vocab=50, act_fn="gelu", seed=0,
        positional_embedding_type="rotary", rotary_dim=6, normalization_type="RMS", dtype=torch.float64,
        device="cpu",
    )  # fmt: skip
    model = HookedTransformer(config)
    assert (model.cfg.n_layers, model.cfg.d_model) == (3, 12)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session", params=["hooked_transformer", "bridge"])
def word_model(request, tmp_path_factory):
    """A tiny random model of each class, with a word-level tokenizer."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = tiny.word_tokenizer(folder)
    return tiny.bridge(tokenizer, folder) if request.param == "bridge" else tiny.hooked_transformer(tokenizer)


@pytest.fixture(scope="session")
def gemma():
    import lrc_tl as lrc

    return lrc.load_model("packaged:gemma-3-270m")
