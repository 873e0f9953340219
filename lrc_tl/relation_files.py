"""Relation files: the JSON format of the LRE dataset, the built-in relations, and finding one by its name.

A relation file is a JSON object with `name`, `prompt_templates` (few-shot), optional
`prompt_templates_zs` (zero-shot; the few-shot ones when absent), optional `kind` (or
`properties.relation_type`) and `samples`, a list of `{"subject": ..., "object": ...}`. `{}` in a
template stands for the subject, and a template ends where the object begins. The format is that of
Hernandez et al. 2023 (arXiv:2308.09124). Needs no torch.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from lrc_tl.relations import Relation, RelationError


def _canonical(name: str) -> str:
    return re.sub(r"[\s_]+", "_", name.strip()).casefold()


def _strings(data: dict[str, Any], field: str, source: str) -> list[str]:
    value = data[field]
    if not isinstance(value, list):
        raise RelationError(f"{source}: {field} must be a list of strings, not {type(value).__name__}")
    for number, entry in enumerate(value):
        if not isinstance(entry, str):
            raise RelationError(f"{source}: {field}[{number}] must be a string, not {type(entry).__name__}")
    return value


def _parse(raw: bytes, source: str, *, strict: bool) -> Relation:
    try:
        data = json.loads(raw.decode("utf-8-sig"))  # with or without a byte-order mark
    except UnicodeDecodeError as error:
        raise RelationError(f"{source}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise RelationError(f"{source}: not JSON (line {error.lineno}: {error.msg})") from error
    except RecursionError as error:
        raise RelationError(f"{source}: nested too deeply for a relation file") from error
    if not isinstance(data, dict):
        raise RelationError(f"{source}: the file must hold one JSON object, not {type(data).__name__}")
    for field in ("name", "prompt_templates", "samples"):
        if field not in data:
            raise RelationError(f"{source}: field {field!r} is missing")
    if not isinstance(data["name"], str) or not data["name"].strip():
        raise RelationError(f"{source}: name must be a non-empty string")
    if not isinstance(data["samples"], list):
        raise RelationError(f"{source}: samples must be a list, not {type(data['samples']).__name__}")
    pairs: list[tuple[str, str]] = []
    for number, sample in enumerate(data["samples"]):
        if not isinstance(sample, dict):
            raise RelationError(f"{source}: samples[{number}] must be an object, not {type(sample).__name__}")
        for field in ("subject", "object"):
            value = sample.get(field)
            if not isinstance(value, str) or not value.strip():
                raise RelationError(
                    f"{source}: samples[{number}].{field} must be a non-empty string, not {value!r}"
                )
            if "\n" in value.strip():
                raise RelationError(f"{source}: samples[{number}].{field} must be one line of text, not {value!r}")
        pairs.append((sample["subject"], sample["object"]))
    zero_shot = data.get("prompt_templates_zs")
    properties = data.get("properties")
    kind = data.get("kind") or (properties.get("relation_type") if isinstance(properties, dict) else None)
    try:
        return Relation.from_pairs(
            data["name"],
            pairs,
            templates=_strings(data, "prompt_templates", source),
            zero_shot_templates=None if zero_shot is None else _strings(data, "prompt_templates_zs", source),
            kind=kind or "factual",
            strict=strict,
        )
    except RelationError as error:
        message = str(error)
        raise RelationError(message if message.startswith(source) else f"{source}: {message}") from error


def _built_in() -> dict[str, Traversable]:
    folder = files("lrc_tl") / "data" / "relations"
    entries = [entry for entry in folder.iterdir() if entry.name.endswith(".json")]
    return {entry.name.removesuffix(".json"): entry for entry in sorted(entries, key=lambda entry: entry.name)}


def built_in_relations() -> tuple[str, ...]:
    """Names that `load_relation` accepts without a file."""
    return tuple(_built_in())


def load_relation(name_or_path: str | Path, *, strict: bool = False) -> Relation:
    """A built-in relation by name, or one from a JSON file in the LRE dataset's format.

    Spaces, underscores and case are interchangeable in a built-in name.

    Raises:
        LookupError: neither a built-in name nor an existing file; near names are shown.
        RelationError: the file is malformed; the text names file, field and entry.
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
    if path.is_file():
        return _read(path, strict=strict)
    raise LookupError(f"no relation or file {str(name_or_path)!r}{_hint(key, built_in, 'built in are')}")


def load_relations(folder: str | Path, *, strict: bool = False) -> tuple[dict[str, Relation], dict[Path, str]]:
    """Every relation below `folder` (searched recursively for `*.json`), and what was wrong with the others.

    Returns:
        The relations by their `name` field, and for each file that could not be loaded its error text. A second
        file with a name already taken is such an error.

    Raises:
        NotADirectoryError: `folder` is not a folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder; give the folder that holds the relations' JSON files")
    relations: dict[str, Relation] = {}
    errors: dict[Path, str] = {}
    taken: dict[str, Path] = {}
    for path in sorted(root.rglob("*.json")):
        if path.is_dir():
            continue
        try:
            relation = _read(path, strict=strict)
        except (RelationError, OSError) as error:
            errors[path] = str(error)
            continue
        first = taken.setdefault(_canonical(relation.name), path)
        if first == path:
            relations[relation.name] = relation
        else:
            errors[path] = f"{path}: a relation named {relation.name!r} was already loaded from {first}"
    return relations, errors


def find_relation(relations: Iterable[Relation] | Mapping[str, Relation], name: str) -> Relation:
    """The relation with this name, or else the one whose file has this stem.

    Spaces, underscores and case are interchangeable.

    Raises:
        LookupError: there is none (near names are shown), or several files have this stem.
    """
    given = list(relations.values()) if isinstance(relations, Mapping) else list(relations)
    key = _canonical(name)
    for names in (
        [_canonical(relation.name) for relation in given],
        [_canonical(Path(relation.source).stem) for relation in given],
    ):
        found = [relation for relation, its_name in zip(given, names, strict=True) if its_name == key]
        if len(found) == 1:
            return found[0]
        if found:
            sources = ", ".join(f"{relation.name!r} ({relation.source or 'no file'})" for relation in found)
            raise LookupError(f"{len(found)} relations are called {name!r}: {sources}; give one by its name")
    known = {_canonical(relation.name): relation.name for relation in given}
    known |= {_canonical(Path(relation.source).stem): relation.name for relation in given if relation.source}
    raise LookupError(f"no relation {name!r}{_hint(key, known, 'there are')}")


def _read(path: Path, *, strict: bool) -> Relation:
    return replace(_parse(path.read_bytes(), str(path), strict=strict), source=str(path))


def _hint(key: str, names: Iterable[str], otherwise: str) -> str:
    names = list(names)
    near = get_close_matches(key, names, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else f"; {otherwise} {', '.join(names) or 'none'}"
