"""Weights that stay in files: the same model as TransformerLens makes in memory, to the last bit."""

import os
from copy import deepcopy
from pathlib import Path

import pytest
import tiny_models
import torch

import lrc_tl as lrc
from lrc_tl.models.mapped_weights import mapped_hooked_transformer, plain_hooked_transformer
from lrc_tl.storage.stored_hashes import write_hashes

NAME = "google/gemma-3-270m"
SIZES = {
    "d_model": 12, "d_head": 6, "n_heads": 2, "d_mlp": 20, "n_layers": 3, "n_ctx": 64, "rotary_dim": 6,
    "d_vocab": 48, "d_vocab_out": 48, "attn_types": ["local", "global", "local"], "attn_scale": 6**0.5,
}  # fmt: skip


@pytest.fixture
def given(one_thread, tmp_path, monkeypatch):
    """A tiny random Gemma 3, read from a folder as `load_model` reads it; TransformerLens is told its sizes."""
    cls = tiny_models.require_hooked_transformer()
    from transformer_lens import loading_from_pretrained as loading  # gone in 4.x, as the class is
    from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        hidden_size=12, head_dim=6, num_attention_heads=2, num_key_value_heads=1, intermediate_size=20,
        num_hidden_layers=3, vocab_size=48, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
        pad_token_id=0, initializer_range=0.6, query_pre_attn_scalar=6,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = Gemma3ForCausalLM(config)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.normal_(std=0.4)
    made.save_pretrained(tmp_path)
    full_size = loading.get_pretrained_model_config

    def tiny(name, **options):
        cfg = full_size(name, **options)
        for key, value in SIZES.items():
            assert hasattr(cfg, key)
            setattr(cfg, key, value)
        return cfg

    monkeypatch.setattr(loading, "get_pretrained_model_config", tiny)
    hf_model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    return cls, tmp_path, {"hf_model": hf_model, "tokenizer": tiny_models.word_tokenizer(tmp_path)}


def mapped(given):
    cls, folder, parts = given
    return mapped_hooked_transformer(cls, folder, NAME, device="cpu", **parts).eval().requires_grad_(False)


def plain(given):
    cls, _, parts = given
    return plain_hooked_transformer(cls, NAME, device="cpu", **parts).eval().requires_grad_(False)


def converted(given):
    return list(Path(given[1]).glob("hooked_transformer-*.safetensors"))


def test_mapped_weights_are_the_plain_ones_to_the_last_bit_and_in_the_same_layout(given):
    one, other = mapped(given), plain(given)
    assert one.cfg.d_model == 12
    assert sorted(one.state_dict()) == sorted(other.state_dict())
    for key, value in other.state_dict().items():
        assert torch.equal(one.state_dict()[key], value), key
        assert one.state_dict()[key].stride() == value.stride(), key
    ids = one.to_tokens("w1 w2 w30 w4 w1")
    assert torch.equal(ids, other.to_tokens("w1 w2 w30 w4 w1"))
    assert torch.equal(one(ids), other(ids))
    assert lrc.models.ModelFingerprint.of(one) == lrc.models.ModelFingerprint.of(other)


def test_the_unembedding_is_the_hugging_face_models_own_memory_and_the_rest_is_not(given):
    model, hf_model = mapped(given), given[2]["hf_model"]
    assert model.unembed.W_U.data_ptr() == hf_model.lm_head.weight.data_ptr()
    own = {parameter.data_ptr() for parameter in hf_model.parameters()}
    assert not own & {value.data_ptr() for key, value in model.named_parameters() if key != "unembed.W_U"}


def test_a_second_load_converts_nothing(given, monkeypatch):
    first = mapped(given)
    (file,) = converted(given)
    written = file.stat().st_mtime_ns
    monkeypatch.setattr(given[0], "from_pretrained_no_processing", None)
    again = mapped(given)
    assert converted(given) == [file]
    assert file.stat().st_mtime_ns == written
    ids = first.to_tokens("w1 w2 w3")
    assert torch.equal(again(ids), first(ids))


def test_tensors_start_at_whole_cache_lines(given):
    mapped(given)
    (file,) = converted(given)
    header = int.from_bytes(file.read_bytes()[:8], "little")
    assert (8 + header) % 64 == 0


def test_a_mapped_model_is_copied_converted_and_changed_without_changing_the_files(given):
    model = mapped(given)
    ids = model.to_tokens("w1 w2 w30")
    before = model(ids)
    copy = deepcopy(model)
    assert torch.equal(copy(ids), before)
    for parameter in copy.parameters():
        parameter.data.zero_()
    assert torch.equal(model(ids), before)
    assert deepcopy(model).to(torch.float64).unembed.W_U.dtype == torch.float64
    for parameter in model.parameters():
        parameter.data.zero_()
    parts = {**given[2], "hf_model": type(given[2]["hf_model"]).from_pretrained(given[1], dtype=torch.float32)}
    assert torch.equal(mapped((given[0], given[1], parts))(ids), before)


def test_what_a_killed_process_left_behind_is_cleared_away(given):
    mapped(given)
    (file,) = converted(given)
    file.unlink()
    left_over = file.with_name(f".{file.name}.17.partial")
    left_over.write_text("half")
    mapped(given)
    assert converted(given) == [file]
    assert not left_over.exists()


def test_a_file_of_another_model_is_refused(given):
    from safetensors.torch import save_file

    mapped(given)
    (file,) = converted(given)
    save_file({"embed.W_E": torch.zeros(48, 12)}, file)
    write_hashes(file.with_name(f"{file.name}.sha256"), belongs=lambda name: name == file.name)
    with pytest.raises(RuntimeError, match=r"does not hold the weights of google/gemma-3-270m; delete it"):
        mapped(given)


@pytest.mark.parametrize("harm", ["flipped", "cut", "no hashes", "other hashes"])
def test_a_damaged_file_is_made_anew_and_said_so(given, capsys, harm):
    mapped(given)
    (file,) = converted(given)
    record, whole, kept = file.with_name(f"{file.name}.sha256"), file.read_bytes(), file.stat()
    if harm == "flipped":
        file.write_bytes(whole[:-5] + bytes([whole[-5] ^ 4]) + whole[-4:])
        os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    elif harm == "cut":
        file.write_bytes(whole[:100])
    elif harm == "no hashes":
        record.unlink()
    else:
        record.write_text("{}")
    capsys.readouterr()
    model = mapped(given)
    assert capsys.readouterr().err.count("the stored weights are damaged") == 1
    assert file.read_bytes() == whole
    ids = model.to_tokens("w1 w2 w30")
    assert torch.equal(model(ids), plain(given)(ids))
    capsys.readouterr()
    mapped(given)
    assert "damaged" not in capsys.readouterr().err


def test_where_nothing_can_be_written_it_warns_and_the_model_is_the_same(given, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError("read-only file system")

    monkeypatch.setattr("safetensors.torch.save_file", refuse)
    with pytest.warns(UserWarning, match=r"could not be written \(read-only file system\), so google/gemma"):
        model = mapped(given)
    ids = model.to_tokens("w1 w2 w30")
    assert torch.equal(model(ids), plain(given)(ids))
    assert [file.name for file in Path(given[1]).iterdir() if file.name.startswith((".hooked", "hooked"))] == []


def test_mapped_and_plain_weights_go_to_the_device_asked_for(given):
    cls, folder, parts = given
    for model in (
        mapped_hooked_transformer(cls, folder, NAME, device="meta", **parts),
        plain_hooked_transformer(cls, NAME, device="meta", **parts),
    ):
        assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
        assert str(model.cfg.device) == "meta"
