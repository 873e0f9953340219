"""Relation files: the JSON format of the LRE dataset, the built-in relations, and finding one by its name.

A relation file is a JSON object with `name`, `prompt_templates` (few-shot), optional `prompt_templates_zs`
(zero-shot; the few-shot ones when absent), optional `kind` (or `properties.relation_type`), optional `aliases`
(`{"GM": ["General Motors"]}`, see `Relation.from_pairs`) and `samples`, a list of
`{"subject": ..., "object": ...}`. `{}` in a template stands for the subject, and a template ends where the object
begins. The format is that of Hernandez et al. 2023 (arXiv:2308.09124), whose other keys are known and not read.
Needs no torch.
"""

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from lrc_tl.arguments.near_names import did_you_mean, near_names
from lrc_tl.errors import RelationError
from lrc_tl.markup.caller_warnings import warn_caller
from lrc_tl.markup.printable import printable
from lrc_tl.relations.facts import name_flaw
from lrc_tl.relations.relation import Relation

_KEYS = (
    "name",
    "prompt_templates",
    "prompt_templates_zs",
    "kind",
    "properties",
    "samples",
    "aliases",
    "domain",
    "range",
)
_PROPERTIES = ("relation_type", "domain_name", "range_name", "symmetric", "fn_type", "disambiguating")
_SAMPLE_KEYS = ("subject", "object")


def _canonical(name: str) -> str:
    # Some file systems keep names in decomposed form.
    return re.sub(r"[\s_]+", "_", unicodedata.normalize("NFC", name.strip()).casefold())


def _strings(data: dict[str, Any], field: str, source: str) -> list[str]:
    value = data[field]
    if not isinstance(value, list):
        raise RelationError(f"{source}: {field} must be a list of strings, not {type(value).__name__}")
    for number, entry in enumerate(value):
        if not isinstance(entry, str):
            raise RelationError(f"{source}: {field}[{number}] must be a string, not {type(entry).__name__}")
    return value


def _parse(raw: bytes, source: str, *, strict: bool) -> Relation:
    data = _json_object(raw, source)
    unknown = _unknown_keys(data)
    for field in ("name", "prompt_templates", "samples"):
        if field not in data:
            near = near_names(field, set(data) - set(_KEYS), n=1)
            raise RelationError(f"{source}: field {field!r} is missing{f'; is it {near[0]!r}?' if near else ''}")
    if not isinstance(data["name"], str) or not data["name"].strip():
        raise RelationError(f"{source}: name must be a non-empty string")
    if unknown and strict:
        raise RelationError(f"{source}: {unknown}; rename or remove them, or load with strict=False")
    properties = data.get("properties")
    if properties is not None and not isinstance(properties, dict):
        raise RelationError(f"{source}: properties must be an object, not {type(properties).__name__}")
    kind = data.get("kind")
    if kind is None:
        kind = (properties or {}).get("relation_type")
    zero_shot = data.get("prompt_templates_zs")
    try:
        relation = Relation.from_pairs(
            data["name"],
            _pairs(data["samples"], source),
            templates=_strings(data, "prompt_templates", source),
            zero_shot_templates=None if zero_shot is None else _strings(data, "prompt_templates_zs", source),
            kind="factual" if kind is None else kind,
            aliases=data.get("aliases"),
            strict=strict,
        )
    except RelationError as error:
        message = str(error)
        raise RelationError(message if message.startswith(source) else f"{source}: {message}") from error
    if unknown:
        warn_caller(f"{source}: {unknown}; they are ignored")
    return relation


def _json_object(raw: bytes, source: str) -> dict[str, Any]:
    try:
        # With or without a byte-order mark.
        data = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_without_repeated_keys)
    except UnicodeDecodeError as error:
        raise RelationError(f"{source}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise RelationError(f"{source}: not JSON (line {error.lineno}: {error.msg})") from error
    except RecursionError as error:
        raise RelationError(f"{source}: nested too deeply for a relation file") from error
    except RelationError as error:
        raise RelationError(f"{source}: {error}") from error
    except ValueError as error:  # Python reads no whole number of more than 4,300 digits
        raise RelationError(f"{source}: holds a number that is too long ({error})") from error
    if not isinstance(data, dict):
        raise RelationError(f"{source}: the file must hold one JSON object, not {type(data).__name__}")
    return data


def _without_repeated_keys(members: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(members)
    if len(data) < len(members):
        repeated = next(key for key in data if sum(name == key for name, _ in members) > 1)
        raise RelationError(
            f"the key {repeated!r} stands more than once in one object, and only one of its values would be read; "
            "keep one of them"
        )
    return data


def _unknown_keys(data: dict[str, Any]) -> str:
    """The keys that nothing reads, each with the key that may be meant; empty: there are none."""
    properties, samples = data.get("properties"), data.get("samples")
    in_samples = [sample for sample in samples if isinstance(sample, dict)] if isinstance(samples, list) else []
    unknown = [
        (key, near)
        for keys, known in (
            (data, _KEYS),
            (properties if isinstance(properties, dict) else (), _PROPERTIES),
            (dict.fromkeys(key for sample in in_samples for key in sample), _SAMPLE_KEYS),
        )
        for key in keys
        if key not in known
        for near in [near_names(key, known, n=1)]
    ]
    named = ", ".join(f"{key!r}" + (f" (did you mean {near[0]!r}?)" if near else "") for key, near in unknown)
    return f"unknown keys: {named}" if unknown else ""


def _pairs(samples: Any, source: str) -> list[tuple[str, str]]:
    if not isinstance(samples, list):
        raise RelationError(f"{source}: samples must be a list, not {type(samples).__name__}")
    for number, sample in enumerate(samples):
        if not isinstance(sample, dict):
            raise RelationError(f"{source}: samples[{number}] must be an object, not {type(sample).__name__}")
        for field in _SAMPLE_KEYS:
            if flaw := name_flaw(sample.get(field)):
                raise RelationError(f"{source}: samples[{number}].{field} {flaw}")
    return [(sample["subject"], sample["object"]) for sample in samples]


def _built_in() -> dict[str, Traversable]:
    folder = files("lrc_tl.relations") / "data"
    entries = [entry for entry in folder.iterdir() if entry.name.endswith(".json")]
    return {entry.name.removesuffix(".json"): entry for entry in sorted(entries, key=lambda entry: entry.name)}


def built_in_relations() -> tuple[str, ...]:
    """Names that `load_relation` accepts without a file."""
    return tuple(_built_in())


def is_built_in(relation: Relation) -> bool:
    """Whether it is a built-in relation, as `load_relation` gives it by its name."""
    key = _canonical(relation.name)
    return key in _built_in() and relation == load_relation(key)


def load_relation(name_or_path: str | Path, *, strict: bool = False) -> Relation:
    """A built-in relation by name, or one from a JSON file in the LRE dataset's format.

    Spaces, underscores and case are interchangeable in a built-in name. A key that nothing reads gives a
    warning with the key that may be meant, and so do facts that are left out, as in `Relation.from_pairs`; with
    `strict` both are errors, and so is a repeated fact.

    Raises:
        LookupError: neither a built-in name nor an existing file; near names are shown.
        RelationError: the file is malformed, or no ordinary file; the text names file, field and entry.
        IsADirectoryError: the path is a folder; `load_relations` reads those.
    """
    built_in = _built_in()
    key = _canonical(str(name_or_path))
    if isinstance(name_or_path, str) and key in built_in:
        parsed = _parse(built_in[key].read_bytes(), f"built-in relation {key}", strict=strict)
        return replace(parsed, source=f"{key}.json")
    path = Path(name_or_path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; load all its relations with load_relations")
    if path.exists():
        return _read(path, strict=strict)
    hint = did_you_mean(key, built_in, otherwise="built in are")
    raise LookupError(f"no relation or file {str(name_or_path)!r}; {hint}")


def load_relations(folder: str | Path, *, strict: bool = False) -> tuple[dict[str, Relation], dict[Path, str]]:
    """Every relation below `folder` (searched recursively for `*.json`), and what was wrong with the others.

    Links to folders are not followed. Each file is read, with the same warnings, as by `load_relation`.

    Returns:
        The relations by their `name` field, and for each file that could not be loaded, and each folder that could
        not be listed, its error text. A second file with a name already taken is such an error.

    Raises:
        NotADirectoryError: `folder` is not a folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder; give the folder that holds the relations' JSON files")
    relations: dict[str, Relation] = {}
    taken: dict[str, Path] = {}
    paths, errors = _files_below(root)
    for path in paths:
        try:
            relation = _read(path, strict=strict)
        except (RelationError, OSError) as error:
            errors[path] = str(error)
            continue
        first = taken.setdefault(_canonical(relation.name), path)
        if first == path:
            relations[relation.name] = relation
        else:
            errors[path] = (
                f"{_shown(path)}: a relation named {relation.name!r} was already loaded from {_shown(first)}"
            )
    return relations, errors


def _files_below(root: Path) -> tuple[list[Path], dict[Path, str]]:
    """Every `*.json` that is not a folder, in order, and why folders could not be listed."""
    paths: list[Path] = []
    errors: dict[Path, str] = {}

    def note(error: OSError) -> None:
        errors[Path(error.filename)] = f"{error}; the relations in this folder were not read"

    for folder, _, names in os.walk(root, onerror=note):
        paths += [Path(folder, name) for name in names if name.endswith(".json")]
    return sorted(paths), errors


def find_relation(relations: Iterable[Relation] | Mapping[str, Relation], name: str) -> Relation:
    """The relation with this name, or else the one whose file has this stem.

    Spaces, underscores and case are interchangeable.

    Raises:
        LookupError: no such relation (near names are shown), or several files have this stem.
    """
    given = list(relations.values()) if isinstance(relations, Mapping) else list(relations)
    key = _canonical(name)
    for names in (
        [_canonical(relation.name) for relation in given],
        [_canonical(Path(relation.source).stem) for relation in given],
    ):
        matching = [relation for relation, its_name in zip(given, names, strict=True) if its_name == key]
        if len(matching) == 1:
            return matching[0]
        if matching:
            sources = ", ".join(f"{relation.name!r} ({relation.source or 'no file'})" for relation in matching)
            raise LookupError(f"{len(matching)} relations are called {name!r}: {sources}; give one by its name")
    known = {_canonical(relation.name): relation.name for relation in given}
    known |= {_canonical(Path(relation.source).stem): relation.name for relation in given if relation.source}
    raise LookupError(f"no relation {name!r}; {did_you_mean(key, known)}")


def _read(path: Path, *, strict: bool) -> Relation:
    if path.exists() and not path.is_file():  # reading a named pipe would wait for its writer
        raise RelationError(f"{_shown(path)}: is a named pipe or a device; give an ordinary file")
    return replace(_parse(path.read_bytes(), _shown(path), strict=strict), source=str(path))


def _shown(path: Path) -> str:
    return printable(str(path))
