"""Loading: what is found, how it is loaded, and what is refused."""

import random
from pathlib import Path

import pytest
import tiny_models
import torch

import lrc_tl as lrc
from lrc_tl.models.hooked_model import hooked_transformer


@pytest.fixture
def folder(tmp_path):
    """A tiny Llama as a Hugging Face folder."""
    tiny_models.bridge(tiny_models.word_tokenizer(tmp_path), tmp_path)
    return tmp_path


def test_an_unknown_name_is_refused_with_what_is_allowed(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        lrc.errors.ModelError, match=r"could not load 'gpt-17'.*or one of packaged:gemma-3-270m, packaged"
    ):
        lrc.load_model("gpt-17")
    with pytest.raises(
        lrc.errors.ModelError, match="no packaged model 'packaged:llama'; there are packaged:gemma-3-270m"
    ):
        lrc.load_model("packaged:llama")


def test_what_is_no_model_an_unknown_backend_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(TypeError, match="int is not a model that lrc_tl can use"):
        lrc.load_model(17)
    with pytest.raises(ValueError, match="backend is 'keras'; allowed are auto, hooked_transformer, bridge"):
        lrc.load_model("packaged:gemma-3-270m", backend="keras")
    with pytest.raises(lrc.errors.ModelError, match="is not a Hugging Face folder"):
        lrc.load_model(tmp_path)


@pytest.mark.parametrize("given", ["./no/such", "/no/such", "~/no", "a/b/c", "no.gguf", "no/", Path("no")])
def test_a_missing_folder_or_file_is_said_as_such(given):
    with pytest.raises(lrc.errors.ModelError, match=f"there is no folder or GGUF file '{given}'; give one that"):
        lrc.load_model(given)


def test_hooked_transformer_is_refused_where_there_is_none(folder):
    if hooked_transformer() is not None:
        pytest.skip("this TransformerLens has it")
    with pytest.raises(lrc.errors.ModelError, match="has no HookedTransformer"):
        lrc.load_model(folder, backend="hooked_transformer")


def test_a_folder_loads_raw_without_gradients_and_with_its_tokenizers_own_first_token(folder):
    model = lrc.load_model(folder)
    assert isinstance(model, lrc.models.HookedModel)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    fingerprint = lrc.models.ModelFingerprint.of(model)
    assert (fingerprint.processing, fingerprint.bos, fingerprint.name) == ("raw", "prepended", folder.name)
    assert model.to_tokens("w1 w2")[0].tolist() == model.tokenizer("w1 w2")["input_ids"] == [1, 5, 6]


def test_a_tokenizer_that_puts_no_first_token_is_left_so(tmp_path):
    tokenizer = tiny_models.word_tokenizer(tmp_path)
    tokenizer.backend_tokenizer.post_processor = None
    tiny_models.bridge(tokenizer, tmp_path)
    model = lrc.load_model(tmp_path)
    assert model.to_tokens("w1 w2")[0].tolist() == [5, 6]
    assert lrc.models.ModelFingerprint.of(model).bos == "none"


def test_a_model_that_the_user_has_is_used_as_it_is(word_model):
    word_model.train()
    assert lrc.load_model(word_model) is word_model
    assert not word_model.training


def test_an_unknown_hook_point_is_refused_with_near_names(word_model):
    lrc.models.require_hook(word_model, "blocks.1.hook_resid_post")
    with pytest.raises(LookupError, match=r"hook_resid_pots'; near names: .*blocks\.1\.hook_resid_post"):
        lrc.models.require_hook(word_model, "blocks.1.hook_resid_pots")


def test_negative_layers_count_from_the_end_and_others_are_refused(word_model):
    assert lrc.models.hook_name(word_model, -1) == "blocks.2.hook_resid_post"
    for layer in (3, -4):
        with pytest.raises(ValueError, match=f"layer {layer} is outside the model; allowed are -3 to 2"):
            lrc.models.hook_name(word_model, layer)


def test_a_damaged_gguf_file_is_named_in_one_line(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    monkeypatch.setenv("LRC_TL_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "some \x1b[31mmodel.gguf"
    lrc.write_control_vector(path, {1: torch.ones(40), 2: torch.ones(40)}, model_hint="gemma3", name="x" * 50)
    whole, draw = path.read_bytes(), random.Random(0)
    damaged = [
        whole,
        b"",
        whole[:4],
        whole[:30],
        whole[:100],
        whole[:-10],
        b"GGUF" + bytes(40),
        b"GGUF" + b"\xff" * 90,
    ]
    for _ in range(20):
        flipped = bytearray(whole)
        for place in draw.choices(range(4, 200), k=3):
            flipped[place] ^= 1 << draw.randrange(8)
        damaged.append(bytes(flipped))
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(
            lrc.errors.ModelError, match=r"model\.gguf: damaged, cut short, or no GGUF file"
        ) as caught:
            lrc.load_model(path)
        assert str(caught.value).isprintable()
        assert "partial-" not in str(caught.value)


@pytest.mark.real_model
@pytest.mark.smoke
def test_smollm2_loads_through_the_bridge_and_puts_no_first_token():
    model = lrc.load_model("packaged:smollm2-135m")
    fingerprint = lrc.models.ModelFingerprint.of(model)
    assert (fingerprint.name, fingerprint.n_layers, fingerprint.d_model) == ("SmolLM2-135M-Instruct", 30, 576)
    assert fingerprint.bos == "none"
    prompt = lrc.Prompt(text="Paris is the capital of", subject="Paris", object="France")
    tokens = lrc.relations.tokenize_prompt(model, prompt)
    assert tokens.subject_position == 0
    shown = "Berlin is the capital of Germany\nRome is the capital of Italy\nParis is the capital of"
    few_shot = lrc.Prompt(text=shown, subject="Paris", object="France")
    assert lrc.filter_known(model, [few_shot]).prompts == (few_shot,)
    with torch.no_grad():
        assert torch.isfinite(lrc.subject_activations(model, [prompt], layer=-1)).all()


@pytest.mark.real_model
@pytest.mark.smoke
def test_a_set_saved_on_the_packaged_gemma_loads_on_the_bridge_and_not_on_another_model(gemma, tmp_path):
    prompt = lrc.Prompt(text="Paris is the capital of", subject="Paris", object="France")
    path = tmp_path / "concepts.safetensors"
    lrc.mean_concepts(gemma, [prompt], layer=9).save(path)
    bridge = lrc.load_model("packaged:gemma-3-270m", backend="bridge")
    if hooked_transformer() is None:
        loaded = lrc.ConceptSet.load(path, model=bridge)
    else:
        with pytest.warns(UserWarning, match="model_class HookedTransformer against TransformerBridge"):
            loaded = lrc.ConceptSet.load(path, model=bridge)
    here, there = (lrc.subject_activations(model, [prompt], layer=9) for model in (gemma, bridge))
    torch.testing.assert_close(loaded.scores(there), loaded.scores(here), rtol=1e-4, atol=1e-2)
    with pytest.raises(
        lrc.errors.FingerprintMismatch, match="name 'gemma-3-270m' against 'SmolLM2-135M-Instruct'"
    ):
        lrc.ConceptSet.load(path, model=lrc.load_model("packaged:smollm2-135m"))


def test_a_folder_with_a_damaged_file_is_named_in_one_line(folder):
    draw = random.Random(0)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        whole = (folder / name).read_bytes()
        damaged = [b"", whole[: len(whole) // 2], whole[:10], b"[" * 100_000, b"\x80\x04\xff", b"null", b"3"]
        for _ in range(4):
            flipped = bytearray(whole)
            flipped[draw.randrange(min(200, len(whole)))] ^= 0x81
            damaged.append(bytes(flipped))
        for data in damaged:
            (folder / name).write_bytes(data)
            try:
                lrc.load_model(folder)
            except lrc.errors.ModelError as error:
                text = str(error)
                assert str(folder) in text
                assert text.isprintable(), ascii(text)
        (folder / name).write_bytes(whole)
    lrc.load_model(folder)


def devices(model):
    return {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}


def test_a_folder_is_loaded_onto_the_device_asked_for(folder):
    for device in ("meta", torch.device("meta")):
        model = lrc.load_model(folder, device=device)
        assert devices(model) == {"meta"}
        assert str(model.cfg.device) == "meta"
    model = lrc.load_model(folder)
    assert devices(model) == {"cpu"}
    assert torch.isfinite(model(torch.tensor([[1, 5, 6]]))).all()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "device is 'gpu', which torch does not know; give 'cpu', 'cuda', 'cuda:0' or 'mps'"),
        ("", "device is ''"),
        ("cuda:x", "device is 'cuda:x'"),
        ("cuda:99", "device is 'cuda:99', which this machine or its torch does not have"),
        ("\x1b[2J", r"device is '\\x1b\[2J'"),
        (None, "device is None"),
        (True, "device is True"),
    ],
)
def test_a_device_that_is_none_is_refused_before_anything_is_loaded(tmp_path, device, message):
    for model in (tmp_path / "nothing here", "packaged:gemma-3-270m", 17):
        with pytest.raises(ValueError, match=message):
            lrc.load_model(model, device=device)


def test_a_folder_is_loaded_by_hooked_transformer_too_with_the_same_residuals(tmp_path):
    tiny_models.require_hooked_transformer()
    # Paths that name another model must not mislead TransformerLens.
    folder = tmp_path / "my-gemma-llama-finetune"
    tiny_models.bridge(tiny_models.word_tokenizer(folder), folder)
    models = [lrc.load_model(folder, backend=backend) for backend in ("hooked_transformer", "bridge")]
    fingerprints = [lrc.models.ModelFingerprint.of(model) for model in models]
    assert [each.model_class for each in fingerprints] == ["HookedTransformer", "TransformerBridge"]
    assert fingerprints[0].is_same_model(fingerprints[1])
    assert fingerprints[0].name == folder.name


def test_a_model_that_transformer_lens_computes_otherwise_than_transformers_is_refused(folder, monkeypatch):
    from transformer_lens.model_bridge import TransformerBridge

    boot = TransformerBridge.boot_transformers

    def other_weights(*args, **given):
        bridge = boot(*args, **given)
        with torch.no_grad():
            for weight in bridge.parameters():
                weight *= 1.01
        return bridge

    monkeypatch.setattr(TransformerBridge, "boot_transformers", other_weights)
    with pytest.raises(lrc.errors.ModelError, match="computes other logits for the LlamaForCausalLM of"):
        lrc.load_model(folder)
