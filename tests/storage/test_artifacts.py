"""Files come back bit for bit, and every damaged one is refused with a clear line."""

import json
import pickle
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import lrc_tl as lrc
from lrc_tl.errors import ArtifactError
from lrc_tl.relations.prompts import prompts_hash
from lrc_tl.storage import artifacts
from lrc_tl.storage.artifacts import read_artifact, write_artifact

HOOK = "blocks.1.hook_resid_post"


def directions(n=3, width=12, dtype=torch.float32, **given):
    generator = torch.Generator().manual_seed(0)
    return {
        name: lrc.ConceptDirection.from_unscaled(
            torch.randn(width, generator=generator, dtype=dtype),
            relation="r",
            object_name=name,
            hook_name=HOOK,
            **given,
        )
        for name in ("Côte d'Ivoire", "日本", "x y")[:n]
    }


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "set.safetensors"
    lrc.ConceptSet(directions(), settings={"rank": 4, "seed": 0}).save(path)
    return path


def rewrite(path, change):
    """Change the header as someone with an editor would, the tensors untouched."""
    tensors = load_file(path)
    with safe_open(path, framework="pt") as opened:
        document = json.loads(opened.metadata()["lrc_tl"])
    change(document)
    save_file(tensors, path, metadata={"lrc_tl": json.dumps(document)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_set_comes_back_bit_for_bit(tmp_path, dtype):
    path = tmp_path / "set.safetensors"
    made = directions(dtype=dtype, method="svm")
    made["日本"] = made["日本"].calibrated(threshold=0.1, slope=1 / 3, intercept=-2.5)
    concepts = lrc.ConceptSet(made, settings={"rank": 4, "prompts": "ab" * 32, "layers": [8, 12], "beta": 0.1})
    concepts.save(path)
    loaded = lrc.ConceptSet.load(path)
    assert list(loaded) == list(concepts)
    assert loaded.vectors.dtype == dtype
    assert torch.equal(loaded.vectors, concepts.vectors)
    assert loaded.settings == concepts.settings
    for name, direction in concepts.items():
        for field in ("relation", "object_name", "hook_name", "method", "norm", "calibration"):
            assert getattr(loaded[name], field) == getattr(direction, field)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64])
def test_any_tensor_comes_back_bit_for_bit(tmp_path, dtype):
    tensors = {"scalar": torch.tensor(3).to(dtype), "strided": torch.arange(12).to(dtype).reshape(3, 4).T}
    write_artifact(tmp_path / "a", kind="test", tensors=tensors, header={"ä": [1, None, 0.1]})
    back, header = read_artifact(tmp_path / "a", kind="test")
    assert header == {"ä": [1, None, 0.1]}
    for name, tensor in tensors.items():
        assert back[name].dtype == dtype
        assert torch.equal(back[name], tensor)


def test_a_file_records_what_wrote_it(saved):
    with safe_open(saved, framework="pt") as opened:
        document = json.loads(opened.metadata()["lrc_tl"])
    assert document["schema"] == {"name": "lrc_tl.artifact", "version": 2}
    assert document["kind"] == "concepts"
    assert document["versions"]["torch"] == torch.__version__.split("+")[0] or document["versions"]["torch"]
    assert {"python", "lrc-tl", "transformer-lens", "torch"} <= set(document["versions"])
    assert document["header"]["layer"] == 1


def test_writing_that_fails_leaves_the_old_file_and_nothing_else(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        lrc.ConceptSet(directions(n=1)).save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_file_cut_short_anywhere_is_refused(saved):
    data = saved.read_bytes()
    cuts = [data[:length] for length in (0, 4, 8, 100, len(data) // 2, len(data) - 1)]
    # The length of a header may look like the start of a pickle.
    for cut in (*cuts, (0x0480).to_bytes(8, "little"), (0x0280).to_bytes(8, "little") + b"{}"):
        saved.write_bytes(cut)
        with pytest.raises(ArtifactError, match="damaged, cut short, or not a safetensors"):
            lrc.ConceptSet.load(saved)


def test_a_flipped_bit_anywhere_is_refused(saved):
    data = saved.read_bytes()
    for place in range(0, len(data), 97):
        damaged = bytearray(data)
        damaged[place] ^= 1
        saved.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"set\.safetensors: "):
            lrc.ConceptSet.load(saved)
    damaged = bytearray(data)
    damaged[-1] ^= 1  # in the tensors
    saved.write_bytes(damaged)
    with pytest.raises(ArtifactError, match="its content does not match its SHA-256"):
        lrc.ConceptSet.load(saved)


def test_pickles_are_refused_whatever_they_are_called(tmp_path):
    path = tmp_path / "set.safetensors"
    path.write_bytes(pickle.dumps({"vectors": [1.0]}))
    with pytest.raises(ArtifactError, match=r"a pickle or a torch\.save file, which can run code"):
        lrc.ConceptSet.load(path)
    torch.save({"vectors": torch.ones(2)}, path)
    with pytest.raises(ArtifactError, match=r"a pickle or a torch\.save file, which can run code"):
        lrc.ConceptSet.load(path)


def test_no_length_of_the_header_makes_a_sound_file_look_like_a_pickle(tmp_path):
    starts = set()
    for length in range(0, 300, 4):
        write_artifact(tmp_path / "a", kind="k", tensors={"b": torch.ones(2)}, header={"text": "x" * length})
        starts.add((tmp_path / "a").read_bytes()[:1])
        assert read_artifact(tmp_path / "a", kind="k")[1] == {"text": "x" * length}
    assert b"\x80" in starts


def test_a_later_schema_version_says_what_to_install(saved):
    rewrite(saved, lambda document: document["schema"].update(version=3))
    with pytest.raises(ArtifactError, match="schema version 3, and this lrc_tl reads up to 2; install a newer"):
        lrc.ConceptSet.load(saved)


def test_an_older_schema_version_is_brought_up_to_date(saved, monkeypatch):
    monkeypatch.setattr(artifacts, "SCHEMA_VERSION", 3)
    with pytest.raises(ArtifactError, match="schema version 2 was never in use"):
        lrc.ConceptSet.load(saved)

    def upgrade(document):
        return document | {"header": document["header"] | {"settings": {"rank": 5}}}

    monkeypatch.setitem(artifacts._UPGRADES, 2, upgrade)
    assert lrc.ConceptSet.load(saved).settings == {"rank": 5}


def test_an_edited_header_is_refused(saved):
    rewrite(saved, lambda document: document["header"].update(relation="other"))
    with pytest.raises(ArtifactError, match="its content does not match its SHA-256"):
        lrc.ConceptSet.load(saved)
    rewrite(saved, lambda document: document.pop("schema"))
    with pytest.raises(ArtifactError, match="its lrc_tl header is damaged"):
        lrc.ConceptSet.load(saved)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"none\.safetensors: there is no such file"):
        lrc.ConceptSet.load(tmp_path / "none.safetensors")
    save_file({"vectors": torch.eye(3)}, tmp_path / "other")
    with pytest.raises(ArtifactError, match="not one that lrc_tl wrote"):
        lrc.ConceptSet.load(tmp_path / "other")
    write_artifact(tmp_path / "lre", kind="lre", tensors={}, header={})
    with pytest.raises(ArtifactError, match="holds 'lre', not 'concepts'"):
        lrc.ConceptSet.load(tmp_path / "lre")


def good_header():
    entry = {"name": "x", "relation": "r", "method": "lrc", "norm": 1.0, "threshold": None}
    entry |= {"slope": None, "intercept": None, "write_rule": "vector"}
    return {"hook_name": HOOK, "fingerprint": None, "settings": {}, "objects": [entry]}


@pytest.mark.parametrize(
    ("vectors", "change", "message"),
    [
        (torch.ones(1, 3), {}, "does not describe a set of concepts: the direction of 'x' has norm 1.73"),
        (torch.eye(3)[:2], {}, r"vectors of shape \(2, 3\) for 1 objects"),
        (torch.eye(3)[0], {}, r"vectors of shape \(3,\) for 1 objects"),
        (torch.eye(3)[:1].half(), {}, "vectors are torch.float16; they must be float32 or float64"),
        (torch.eye(3)[:1], {"objects": "x"}, "header field 'objects' is 'x'; it must be a list"),
        (torch.eye(3)[:1], {"fingerprint": {"name": "m"}}, "a model fingerprint needs the fields"),
        (torch.eye(3)[:1], {"objects": [{"name": "x"}]}, "does not describe a set of concepts: 'relation'"),
    ],
)
def test_a_set_that_does_not_add_up_is_refused(tmp_path, vectors, change, message):
    write_artifact(tmp_path / "a", kind="concepts", tensors={"vectors": vectors}, header=good_header() | change)
    with pytest.raises(ArtifactError, match=message):
        lrc.ConceptSet.load(tmp_path / "a")


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="there is no folder"):
        lrc.ConceptSet(directions()).save(tmp_path / "missing" / "a")
    with pytest.raises(ArtifactError, match="cannot be written as JSON"):
        lrc.ConceptSet(directions(), settings={"seed": float("nan")}).save(tmp_path / "a")
    with pytest.raises(ArtifactError, match="cannot be written as JSON"):
        lrc.ConceptSet(directions(), settings={"seed": torch.ones(1)}).save(tmp_path / "a")
    with pytest.raises(ArtifactError, match="tensor 'b' holds numbers that are not finite"):
        write_artifact(tmp_path / "a", kind="k", tensors={"b": torch.tensor([float("inf")])}, header={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("counts", [{2: 1, 10: 2}, {0.5: 1, -1.0: 2}, {True: 1, False: 2}])
def test_settings_with_keys_that_json_makes_strings_of_are_read_again(tmp_path, counts):
    path = tmp_path / "set.safetensors"
    lrc.ConceptSet(directions(), settings={"counts": counts}).save(path)
    expected = {json.dumps(key): value for key, value in counts.items()}
    assert lrc.ConceptSet.load(path).settings == {"counts": expected}


def test_the_hash_of_prompts_sees_every_field_and_the_order():
    one = lrc.Prompt(text="A is in", subject="A", object="x", relation="r")
    other = lrc.Prompt(text="A is in", subject="A", object="y", relation="r")
    hashes = [prompts_hash(prompts) for prompts in ([one, other], [other, one], [one], [])]
    assert len(set(hashes)) == 4
    assert hashes[0] == prompts_hash([one, other])


def test_a_set_is_checked_against_the_model_it_is_loaded_for(word_model, tmp_path):
    path = tmp_path / "set.safetensors"
    fingerprint = lrc.models.ModelFingerprint.of(word_model)
    lrc.ConceptSet(directions(fingerprint=fingerprint)).save(path)
    loaded = lrc.ConceptSet.load(path, model=word_model)
    assert loaded.fingerprint == fingerprint
    weight = next(parameter for name, parameter in word_model.named_parameters() if "mlp" in name)
    before = weight.clone()
    weight.mul_(1.5)
    with pytest.raises(
        lrc.errors.FingerprintMismatch, match=r"direction of .* was made on another model: residuals"
    ):
        lrc.ConceptSet.load(path, model=word_model)
    with pytest.raises(lrc.errors.FingerprintMismatch, match="the steering's vectors were made on another model"):
        loaded["x y"].steer(word_model, strength=0.1).__enter__()
    with pytest.raises(lrc.errors.FingerprintMismatch, match="was made on another model"):
        loaded.classify(word_model, "w1 w2", subject="w1")
    weight.copy_(before)
    lrc.ConceptSet(directions(width=13)).save(path)
    with pytest.raises(ValueError, match="has width 13, but the model's d_model is 12"):
        lrc.ConceptSet.load(path, model=word_model)


def test_reading_warns_of_nothing(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lrc.ConceptSet.load(saved)


def test_saving_onto_a_folder_names_the_folder(tmp_path):
    with pytest.raises(ArtifactError, match="is a folder; give the name of a file to write"):
        lrc.ConceptSet(directions()).save(tmp_path)
    assert not list(tmp_path.iterdir())
