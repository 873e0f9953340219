"""Relations: facts, templates, and the JSON format of the LRE dataset. Needs no torch.

A relation file is a JSON object with `name`, `prompt_templates` (few-shot), optional
`prompt_templates_zs` (zero-shot; the few-shot ones when absent) and `samples`, a list of
`{"subject": ..., "object": ...}`. `{}` in a template stands for the subject, and a template ends
where the object begins. The format is that of Hernandez et al. 2023 (arXiv:2308.09124).
"""

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

KINDS = ("factual", "commonsense", "linguistic", "bias")


class RelationError(ValueError):
    """A relation file or a relation's content is not usable; the text says where and why."""


@dataclass(frozen=True, order=True)
class Fact:
    """One (subject, object) pair of a relation."""

    subject: str
    object: str


@dataclass(frozen=True, kw_only=True)
class Relation:
    """Facts and templates of one relation, checked and free of duplicates.

    Raises:
        RelationError: no facts, an empty template list, or a template without exactly one `{}`.
    """

    name: str
    facts: tuple[Fact, ...]
    templates: tuple[str, ...]
    """Few-shot templates; `{}` is the subject, the object follows the end."""
    zero_shot_templates: tuple[str, ...]
    kind: str = "factual"
    duplicates: tuple[Fact, ...] = ()
    """Facts that the source held more than once; one of each was kept."""
    ambiguous: tuple[Fact, ...] = ()
    """Facts whose subject had two objects in the source; none of them was kept."""

    def __post_init__(self) -> None:
        if not self.facts:
            raise RelationError(f"relation {self.name!r} has no facts; it needs at least one")
        for field, templates in (
            ("prompt_templates", self.templates),
            ("prompt_templates_zs", self.zero_shot_templates),
        ):
            if not templates:
                raise RelationError(f"relation {self.name!r}: {field} is empty; give at least one template")
            for number, template in enumerate(templates):
                if template.count("{}") != 1:
                    raise RelationError(
                        f"relation {self.name!r}: {field}[{number}] = {template!r} must hold {{}} exactly once "
                        "(the place of the subject)"
                    )

    @classmethod
    def from_pairs(
        cls,
        name: str,
        pairs: Iterable[tuple[str, str]],
        *,
        templates: Sequence[str],
        zero_shot_templates: Sequence[str] | None = None,
        kind: str = "factual",
        strict: bool = False,
    ) -> "Relation":
        """A relation from (subject, object) pairs.

        Repeated facts are kept once; a subject with two objects is dropped whole. Both are recorded in
        `duplicates` and `ambiguous`.

        Raises:
            RelationError: bad templates, no usable fact, or, with `strict`, any duplicate or ambiguous fact.
        """
        all_facts = [Fact(subject, object_) for subject, object_ in pairs]
        counts = Counter(all_facts)
        duplicates = tuple(fact for fact, count in counts.items() if count > 1)
        objects_of: dict[str, set[str]] = defaultdict(set)
        for fact in counts:
            objects_of[fact.subject].add(fact.object)
        ambiguous = tuple(fact for fact in counts if len(objects_of[fact.subject]) > 1)
        if strict and (duplicates or ambiguous):
            shown = ", ".join(f"{f.subject!r} -> {f.object!r}" for f in (*duplicates, *ambiguous)[:5])
            raise RelationError(
                f"relation {name!r}: {len(duplicates)} repeated facts and {len(ambiguous)} facts of subjects "
                f"with two objects (first: {shown}); remove them or load with strict=False"
            )
        return cls(
            name=name,
            facts=tuple(fact for fact in counts if len(objects_of[fact.subject]) == 1),
            templates=tuple(templates),
            zero_shot_templates=tuple(templates if zero_shot_templates is None else zero_shot_templates),
            kind=kind,
            duplicates=duplicates,
            ambiguous=ambiguous,
        )

    @property
    def objects(self) -> tuple[str, ...]:
        """Distinct objects in order of first appearance."""
        return tuple(dict.fromkeys(fact.object for fact in self.facts))

    def split(self, *, seed: int, train_share: float = 0.5) -> tuple["Relation", "Relation"]:
        """Training and test relation, stratified by object.

        Every object keeps at least one training fact; an object with a single fact goes to training only.
        The share is rounded half up within each object, so with `train_share=0.5` an odd fact goes to training.

        Raises:
            ValueError: `train_share` is not strictly between 0 and 1.
            RelationError: no object has two facts, so nothing is left to test on.
        """
        if not 0 < train_share < 1:
            raise ValueError(f"train_share is {train_share}; it must lie strictly between 0 and 1")
        generator = random.Random(seed)
        by_object: dict[str, list[Fact]] = defaultdict(list)
        for fact in self.facts:
            by_object[fact.object].append(fact)
        train: set[Fact] = set()
        for object_ in sorted(by_object):
            facts = sorted(by_object[object_])
            generator.shuffle(facts)
            size = min(max(1, int(len(facts) * train_share + 0.5)), max(1, len(facts) - 1))
            train.update(facts[:size])
        test = tuple(fact for fact in self.facts if fact not in train)
        if not test:
            raise RelationError(
                f"relation {self.name!r} has one fact for each of its {len(by_object)} objects; a split needs "
                "an object with at least two facts"
            )
        kept = tuple(fact for fact in self.facts if fact in train)
        return replace(self, facts=kept), replace(self, facts=test)


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
        data = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RelationError(f"{source}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise RelationError(f"{source}: not JSON (line {error.lineno}: {error.msg})") from error
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
        pairs.append((sample["subject"].strip(), sample["object"].strip()))
    zero_shot = data.get("prompt_templates_zs")
    properties = data.get("properties")
    kind = data.get("kind") or (properties.get("relation_type") if isinstance(properties, dict) else None)
    if kind is not None and kind not in KINDS:
        raise RelationError(f"{source}: kind is {kind!r}; allowed are {', '.join(KINDS)}")
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
    """
    built_in = _built_in()
    if isinstance(name_or_path, str) and _canonical(name_or_path) in built_in:
        key = _canonical(name_or_path)
        return _parse(built_in[key].read_bytes(), f"built-in relation {key}", strict=strict)
    path = Path(name_or_path)
    if path.is_file():
        return _parse(path.read_bytes(), str(path), strict=strict)
    near = get_close_matches(_canonical(str(name_or_path)), built_in, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; built in are {', '.join(built_in)}"
    raise LookupError(f"no relation or file {str(name_or_path)!r}{hint}")


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
    for path in sorted(root.rglob("*.json")):
        try:
            relation = load_relation(path, strict=strict)
        except RelationError as error:
            errors[path] = str(error)
            continue
        if relation.name in relations:
            errors[path] = f"{path}: a relation named {relation.name!r} was already loaded from this folder"
        else:
            relations[relation.name] = relation
    return relations, errors
