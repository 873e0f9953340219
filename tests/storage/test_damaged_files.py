"""Whatever happens to a file, one line of our own says so, or what loads is what the file holds; seeded."""

import copy
import json
import random
import sys

import pytest
import torch
from tiny_directions import FINGERPRINT

import lrc_tl as lrc
from lrc_tl.errors import ArtifactError
from lrc_tl.storage import artifacts
from lrc_tl.storage.artifacts import read_artifact

HOOK = "blocks.1.hook_resid_post"
ODD = (
    None, True, 0, -1, 3, 10**400, 1e308, -0.5, "", "x", "blocks", "blocks.1.x", "float8_e4m3fn", "\ud800",
    "\x1b[2J", [], {}, [1], [[1, 2, 3]], [None], {"name": "a"}, float("nan"), float("inf"),
)  # fmt: skip


def a_set(calibrated=True):
    generator = torch.Generator().manual_seed(0)
    concepts = lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                torch.randn(12, generator=generator),
                relation="r",
                object_name=name,
                hook_name=HOOK,
                fingerprint=FINGERPRINT,
            )
            for name in ("France", "日本", "x y")
        },
        settings={"rank": 4, "seed": 0, "layers": [8, 12]},
    )
    acts = torch.randn(30, 12, generator=generator) + 3 * concepts.vectors.repeat(10, 1)
    return concepts.calibrate(acts, list(concepts) * 10) if calibrated else concepts


def a_set_of_pairs():
    """Two directions that write with another vector than they read with, and one that does not."""
    generator = torch.Generator().manual_seed(0)
    return lrc.ConceptSet(
        {
            name: lrc.ConceptDirection.from_unscaled(
                vector := torch.randn(12, generator=generator),
                write_vector=None if rule == "vector" else vector + 0.5 * torch.randn(12, generator=generator),
                write_rule=rule,
                offset=0.5,
                relation="r",
                object_name=name,
                hook_name=HOOK,
                fingerprint=FINGERPRINT,
            )
            for name, rule in (("France", "covariance"), ("日本", "vector"), ("x y", "given"))
        }
    )


def an_lre():
    generator = torch.Generator().manual_seed(0)
    return lrc.LinearRelationalEmbedding(
        weight=torch.randn(6, 6, generator=generator),
        bias=torch.randn(6, generator=generator),
        subject_layer=0,
        object_layer=2,
        object_aggregation="mean",
        n_prompts=4,
        prompts_hash="ab" * 32,
        relation="r",
        fingerprint=FINGERPRINT,
        solver="low_rank",
        rank_limit=3,
        n_products=8,
        direction_errors={"a": 0.1},
    )


MADE = {"set": a_set, "plain set": lambda: a_set(calibrated=False), "pairs": a_set_of_pairs, "lre": an_lre}


@pytest.fixture(params=MADE)
def stored(request, tmp_path):
    """An object, its file, and that file's kind."""
    made, path = MADE[request.param](), tmp_path / "stored.safetensors"
    made.save(path)
    return made, path, "lre" if request.param == "lre" else "concepts"


def require_refused_or_whole(made, path):
    """Loading refuses in one line that names the file, or gives what the file holds: saved, it is the same."""
    try:
        loaded = type(made).load(path)
    except ArtifactError as error:
        text = str(error)
        assert "stored.safetensors" in text
        assert text.isprintable(), ascii(text)
        return False
    again = path.with_name("again")
    loaded.save(again)
    kind = "lre" if isinstance(made, lrc.LinearRelationalEmbedding) else "concepts"
    (tensors, header), (new_tensors, new_header) = read_artifact(path, kind=kind), read_artifact(again, kind=kind)
    assert with_defaults(header) == new_header
    assert tensors.keys() == new_tensors.keys()
    assert all(torch.equal(tensors[name], new_tensors[name]) for name in tensors)
    repr(loaded).encode()
    return True


def with_defaults(header):
    """Files of before a field existed have none."""
    if "n_prompts" in header:
        header = {"method": "exact", "rank_limit": None, "n_products": None, "direction_errors": None} | header
    elif header.get("layer") is None or header.get("relation") is None:  # they follow from the rest
        header = header | {"layer": 1, "relation": header["objects"][0]["relation"]}
    for entry in header.get("objects", ()):
        entry.setdefault("offset", 0.0)
        entry.setdefault("knots", None)
    if "report" in (header.get("calibration") or {}):
        header["calibration"]["report"].setdefault("left_out", [])
    elif "calibration" in header and header["calibration"] is None:
        del header["calibration"]
    return header


def places(value, place=()):
    """Every place in a document, from the top on."""
    yield place
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from places(entry, (*place, key))


def edited(document, draw):
    """The document with one random edit."""
    document = copy.deepcopy(document)
    *path, last = draw.choice(list(places(document))[1:])
    parent = document
    for key in path:
        parent = parent[key]
    edit = draw.choice(("replace", "replace", "replace", "remove", "add"))
    if edit == "replace":
        parent[last] = draw.choice(ODD)
    elif edit == "remove":
        del parent[last]
    elif isinstance(parent, dict):
        parent["another"] = draw.choice(ODD)
    else:
        parent.insert(last, copy.deepcopy(parent[last]))
    return document


def write(path, text, tensors):
    """A safetensors file with this text for its lrc_tl header."""
    from safetensors.torch import save

    path.write_bytes(save(tensors, metadata={"lrc_tl": text}))


def contents(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    from safetensors.torch import load

    return json.loads(header["__metadata__"]["lrc_tl"]), load(data)


def signed(document, tensors):
    """The document as someone would write it who knows how the SHA-256 is made."""
    document = {key: value for key, value in document.items() if key != "sha256"}
    try:
        document["sha256"] = artifacts._digest(document, tensors)
    except (ValueError, TypeError):
        document["sha256"] = "0" * 64
    return json.dumps(document)


def test_a_flipped_bit_is_refused_wherever_it_is(stored):
    made, path, _ = stored
    data, draw, (document, _) = path.read_bytes(), random.Random(0), contents(path)
    for _ in range(300):
        place, bit = draw.randrange(len(data)), draw.randrange(8)
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        # What is stored may be spelled in two ways: the letters of an escape in either case.
        assert not require_refused_or_whole(made, path) or contents(path)[0] == document


def test_a_file_cut_short_or_with_more_behind_it_is_refused(stored):
    made, path, _ = stored
    data, draw = path.read_bytes(), random.Random(1)
    for length in [draw.randrange(len(data)) for _ in range(100)]:
        path.write_bytes(data[:length])
        assert not require_refused_or_whole(made, path)
    for more in (b"\0", b"x" * 9, data):
        path.write_bytes(data + more)
        assert not require_refused_or_whole(made, path)


def test_a_header_edited_by_someone_who_signs_it_again_is_refused_or_loads_as_edited(stored):
    made, path, _ = stored
    document, tensors = contents(path)
    draw, n_loaded = random.Random(2), 0
    for _ in range(500):
        write(path, signed(edited(document, draw), tensors), tensors)
        n_loaded += require_refused_or_whole(made, path)
    assert 0 < n_loaded < 250


def test_a_header_that_is_odd_as_text_is_refused(stored):
    made, path, _ = stored
    document, tensors = contents(path)
    deep = "[" * 200_000 + "]" * 200_000
    shallow = json.dumps(document)
    for text in (
        "",
        "null",
        "[]",
        '"text"',
        "{",
        deep,
        shallow.replace('"header": {', f'"header": {{"a": {deep}, ', 1),
        shallow.replace('"relation": "r"', f'"relation": {"9" * 5000}', 1),
        shallow.replace('"relation": "r"', '"relation": 1e999', 1),
        shallow.replace('"relation": "r"', '"relation": "other", "relation": "r"', 1),
    ):
        assert text != shallow
        write(path, text, tensors)
        assert not require_refused_or_whole(made, path), text[:60]


def test_tensors_of_every_dtype_and_shape_are_refused_or_load_as_they_are(stored):
    made, path, _ = stored
    document, tensors = contents(path)
    dtypes = [dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)]
    for name in tensors:
        for dtype in dtypes:
            try:
                changed = {**tensors, name: tensors[name].to(dtype)}
                write(path, signed(document, changed), changed)
            except (RuntimeError, KeyError, TypeError, NotImplementedError, ValueError):
                continue  # what torch or safetensors cannot make
            require_refused_or_whole(made, path)
        for shape in ((), (0,), (1,), (2, 0), (3,), (1, 1), (3, 12), (12, 3), (6, 6), (3, 3, 3)):
            changed = {**tensors, name: torch.ones(shape, dtype=tensors[name].dtype)}
            write(path, signed(document, changed), changed)
            require_refused_or_whole(made, path)
        for changed in (
            {key: value for key, value in tensors.items() if key != name},
            {**tensors, "other": tensors[name].clone()},
        ):
            write(path, signed(document, changed), changed)
            assert not require_refused_or_whole(made, path)


def test_a_name_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "stored.safetensors"
    made = a_set(calibrated=False)
    made.save(path)
    document, tensors = contents(path)
    document["header"]["objects"][2]["name"] = "France"
    write(path, signed(document, tensors), tensors)
    with pytest.raises(ArtifactError, match=r"stored.safetensors: .*'France' stands 2 times"):
        lrc.ConceptSet.load(path)
    text = signed(document, tensors).replace(
        '"settings"', '"hook_name": "blocks.0.hook_resid_post", "settings"', 1
    )
    write(path, text, tensors)
    with pytest.raises(ArtifactError, match=r"stored.safetensors: .*'hook_name' stands twice"):
        lrc.ConceptSet.load(path)
    with pytest.raises(ArtifactError, match="cannot be written as JSON: the name '1' stands twice"):
        lrc.ConceptSet(made, settings={"n": {1: "a", "1": "b"}}).save(path)


@pytest.mark.parametrize("name", ["\ud800", "a\x1b[31mred", "one\rother", "\x9b"])
def test_names_that_cannot_be_shown_or_written_are_refused(tmp_path, name):
    given = {"relation": "r", "object_name": "o", "hook_name": HOOK, "vector": torch.eye(12)[0]}
    for field in ("relation", "object_name", "method"):
        with pytest.raises(ValueError, match="holds a control character or half of a surrogate pair") as caught:
            lrc.ConceptDirection(**{**given, field: name})
        assert str(caught.value).isprintable()
    lrc.ConceptDirection(**{**given, "object_name": "می‌خواهم"})  # with a zero-width non-joiner, as it is spelled
    if name == "\ud800":
        made = lrc.ConceptSet({"o": lrc.ConceptDirection(**given)}, settings={"a": [name]})
        with pytest.raises(ArtifactError, match="cannot be written as JSON"):
            made.save(tmp_path / "a")
        assert not list(tmp_path.iterdir())


def test_settings_too_deep_to_be_read_again_are_refused_when_written(tmp_path):
    deep = []
    for _ in range(sys.getrecursionlimit() * 200):
        deep = [deep]
    made = lrc.ConceptSet(a_set(calibrated=False), settings={"deep": deep})
    with pytest.raises(ArtifactError, match="cannot be written as JSON"):
        made.save(tmp_path / "a")
    while deep:  # or freeing it would recurse
        deep = deep.pop()


def test_what_is_loaded_does_not_change_with_its_file(stored):
    made, path, _ = stored
    loaded = type(made).load(path)
    tensors = [getattr(loaded, name) for name in ("weight", "bias") if hasattr(loaded, name)]
    if isinstance(loaded, lrc.ConceptSet):
        tensors = [loaded.vectors, *(direction.vector for direction in loaded.values())]
        if loaded.calibration is not None:
            tensors += [loaded.calibration.weight, loaded.calibration.bias]
    before = [tensor.clone() for tensor in tensors]
    with path.open("r+b") as file:  # as `cp` onto it does
        file.write(b"\xff" * path.stat().st_size)
    assert all(torch.equal(one, other) for one, other in zip(tensors, before, strict=True))
    with path.open("r+b") as file:
        file.truncate(0)
    assert all(torch.equal(one, other) for one, other in zip(tensors, before, strict=True))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for name, message in (("none", "there is no such file"), ("pipe", "is no file"), (".", "is no file")):
        for cls in (lrc.ConceptSet, lrc.LinearRelationalEmbedding):
            with pytest.raises(ArtifactError, match=message):
                cls.load(tmp_path / name)


def test_a_damaged_control_vector_is_refused_or_holds_what_was_written(tmp_path):
    pytest.importorskip("gguf")
    path, draw = tmp_path / "v.gguf", random.Random(3)
    made = {layer: torch.randn(40, generator=torch.Generator().manual_seed(layer)) for layer in (1, 2, 7)}
    lrc.write_control_vector(path, made, model_hint="gemma3", name="日本")
    whole = path.read_bytes()
    damaged = [whole[: draw.randrange(len(whole))] for _ in range(60)]
    for _ in range(400):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        damaged.append(bytes(flipped))
    n_loaded = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            read = lrc.directions.read_control_vector(path)
        except ArtifactError as error:
            text = str(error)
            assert "v.gguf: " in text
            assert text.isprintable(), ascii(text)
            continue
        n_loaded += 1
        assert (read.model_hint, read.name, list(read.vectors)) == ("gemma3", "日本", [1, 2, 7])
        assert all(torch.equal(read.vectors[layer], made[layer]) for layer in made)
    assert n_loaded < 60  # padding, and what names the hash itself


def test_a_control_vector_holds_each_layer_once(tmp_path):
    gguf = pytest.importorskip("gguf")
    import numpy as np

    path = tmp_path / "v.gguf"
    for second in ("direction.01", "direction.\u0661"):
        writer = gguf.GGUFWriter(path, "controlvector")
        for name in ("direction.1", second):
            writer.add_tensor(name, np.ones(4, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(ArtifactError, match="is none of a control vector's"):
            lrc.directions.read_control_vector(path)
