"""Files are unchanged exactly where their hashes say so; every kind of damage is told apart."""

import json

import pytest

from lrc_tl.storage import stored_hashes
from lrc_tl.storage.stored_hashes import damage, write_hashes


def belongs(name):
    return name.endswith(".bin")


@pytest.fixture
def record(tmp_path):
    for name in ("a.bin", "b.bin", "other.txt"):
        (tmp_path / name).write_bytes(name.encode() * 9)
    write_hashes(tmp_path / "hashes.json", belongs=belongs)
    return tmp_path / "hashes.json"


def test_only_the_files_that_belong_are_compared(record):
    assert damage(record, belongs=belongs) is None
    (record.parent / "other.txt").write_bytes(b"changed")
    assert damage(record, belongs=belongs) is None
    (record.parent / "b.bin").write_bytes(b"changed")
    assert damage(record, belongs=belongs) == "b.bin is not what was written"


@pytest.mark.parametrize("name", ["b.bin", "c.bin"])
def test_a_file_too_few_or_too_many_is_named(record, name):
    if name == "b.bin":
        (record.parent / name).unlink()
    else:
        (record.parent / name).write_bytes(b"new")
    assert damage(record, belongs=belongs) == f"{name} is missing, or should not be there"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", json.dumps({"sha256": ["a.bin"]}), "[" * 100_000])
def test_a_record_that_holds_no_hashes_is_damaged(record, content):
    record.write_text(content, encoding="utf-8")
    assert damage(record, belongs=belongs) == "hashes.json cannot be read"
    record.unlink()
    assert damage(record, belongs=belongs) == "it has no hashes"


def test_a_file_that_cannot_be_read_is_named(record, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(stored_hashes, "sha256_of", refused)
    assert damage(record, belongs=belongs) == "a.bin cannot be read"
