import hypothesis_profiles  # noqa: F401  (loads a profile)
import pytest
import tiny_models
import torch
from slow_files import SLOW_FILES

from lrc_tl.models.hooked_model import hooked_transformer


def pytest_collection_modifyitems(config, items):
    slow = {config.rootpath / "tests" / name for name in SLOW_FILES}
    for item in items:
        if item.path in slow:
            item.add_marker("slow")


@pytest.fixture
def tiny_model():
    """A random rotary HookedTransformer in float64; no tokenizer."""
    import transformer_lens

    tiny_models.require_hooked_transformer()
    config = transformer_lens.HookedTransformerConfig(
        n_layers=3, d_model=12, n_ctx=32, d_head=6, n_heads=2, d_mlp=20, d_vocab=50, act_fn="gelu", seed=0,
        positional_embedding_type="rotary", rotary_dim=6, normalization_type="RMS", dtype=torch.float64,
        device="cpu",
    )  # fmt: skip
    model = transformer_lens.HookedTransformer(config)
    assert (model.cfg.n_layers, model.cfg.d_model) == (3, 12)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def gemma():
    import lrc_tl as lrc

    return lrc.load_model("packaged:gemma-3-270m")


@pytest.fixture(scope="session")
def known_cities(gemma):
    """Training facts, known few-shot training prompts and known zero-shot test prompts of 60 cities."""
    import lrc_tl as lrc

    train, test = lrc.load_relation("city_in_country").sample(60, seed=0).split(seed=0)
    known = lrc.filter_known(gemma, train.prompts(shots=4, seed=0))
    return train, known, lrc.filter_known(gemma, test.prompts())


@pytest.fixture(scope="module")
def one_thread():
    """Tiny models are ten times slower when their threads wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["hooked_transformer", "bridge"])
def word_model(request, one_thread, tmp_path_factory):
    """A tiny random model with a word-level tokenizer, of each class: float64, and the Bridge in float32."""
    tokenizer = tiny_models.word_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    if request.param == "bridge":
        model = tiny_models.bridge(tokenizer, tmp_path_factory.mktemp("bridge"))
    else:
        model = tiny_models.hooked_transformer(tokenizer)
    assert (model.cfg.n_layers, model.cfg.d_model) == (3, tiny_models.D_MODEL)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def one_word_model(one_thread, tmp_path_factory):
    """A `word_model` of the first class that there is, for laws in which the class of a model has no part."""
    tokenizer = tiny_models.word_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    if hooked_transformer() is None:
        model = tiny_models.bridge(tokenizer, tmp_path_factory.mktemp("bridge"))
    else:
        model = tiny_models.hooked_transformer(tokenizer)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["hooked_transformer", "bridge"])
def class_of_model(request, one_thread):
    if request.param == "hooked_transformer":
        tiny_models.require_hooked_transformer()
    return request.param


@pytest.fixture(scope="module", params=tiny_models.TOKENIZERS)
def any_word_model(request, class_of_model, tmp_path_factory):
    """A tiny random model of each class with a word-level tokenizer of every kind."""
    return tiny_models.model_with(class_of_model, request.param, tmp_path_factory.mktemp("model"))
