"""Relations: facts and templates, seeded splits, and the prompts made from them. Needs no torch."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lrc_tl.no_booleans import no_booleans
from lrc_tl.prompts import PositionError, Prompt, find_subject, spread_over_objects

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
        RelationError: no facts, an unknown kind, an empty template list, or a template without exactly one `{}`.
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
    shot_facts: tuple[Fact, ...] = ()
    """Where few-shot examples come from; empty for the facts themselves. `split` gives the test side the training
    facts."""
    source: str = field(default="", compare=False)
    """The file that it was read from, if any."""

    def __post_init__(self) -> None:
        if not self.facts:
            raise RelationError(f"relation {self.name!r} has no facts; it needs at least one")
        if self.kind not in KINDS:
            raise RelationError(f"relation {self.name!r}: kind is {self.kind!r}; allowed are {', '.join(KINDS)}")
        for field_name, templates in (
            ("prompt_templates", self.templates),
            ("prompt_templates_zs", self.zero_shot_templates),
        ):
            if not templates:
                raise RelationError(f"relation {self.name!r}: {field_name} is empty; give at least one template")
            for number, template in enumerate(templates):
                if template.count("{}") != 1:
                    raise RelationError(
                        f"relation {self.name!r}: {field_name}[{number}] = {template!r} must hold {{}} exactly "
                        "once (the place of the subject)"
                    )

    def __repr__(self) -> str:
        counts = (
            _counted(len(self.facts), "fact"),
            _counted(len(self.objects), "object"),
            _counted(len(self.templates), "template"),
        )
        return f"<Relation {self.name!r} ({self.kind}): {', '.join(counts)}>"

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
        `duplicates` and `ambiguous`. White space around subjects and objects is dropped.

        Raises:
            RelationError: bad templates, a subject or object that is not one line of text, no usable fact, or,
                with `strict`, any duplicate or ambiguous fact.
        """
        all_facts = [_fact(pair, f"relation {name!r}: pair {number}") for number, pair in enumerate(pairs)]
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

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        name: str,
        templates: Sequence[str],
        zero_shot_templates: Sequence[str] | None = None,
        subject: str = "subject",
        object: str = "object",
        kind: str = "factual",
        strict: bool = False,
    ) -> "Relation":
        """A relation from two text columns of a pandas DataFrame, one fact a row; otherwise as `from_pairs`.

        Raises:
            TypeError: `frame` is no DataFrame.
            RelationError: no rows, a column that is missing or there twice, a missing value or one that is not
                text, or what `from_pairs` refuses.
        """
        where = f"relation {name!r}"
        if not (hasattr(frame, "columns") and hasattr(frame, "index")):  # pandas itself need not be imported
            raise TypeError(f"{where}: {type(frame).__name__} is not a pandas DataFrame; for pairs use from_pairs")
        for column in (subject, object):
            count = list(frame.columns).count(column)
            if count != 1:
                there = ", ".join(map(repr, frame.columns)) or "none"
                raise RelationError(
                    f"{where}: the frame has {count} columns named {column!r}; its columns are {there}. "
                    "Name them with subject= and object="
                )
        if frame.empty:
            raise RelationError(f"{where}: the frame has no rows; it needs one for each fact")
        for column in (subject, object):
            for row, value, missing in zip(frame.index, frame[column], frame[column].isna(), strict=True):
                if missing:
                    raise RelationError(f"{where}: row {row!r} has no {column!r}; fill it in or drop the row")
                if not isinstance(value, str):
                    raise RelationError(
                        f"{where}: row {row!r} has {column!r} = {value!r} ({type(value).__name__}), which is not "
                        f"text; turn the column into text, as with frame[{column!r}].astype(str)"
                    )
        return cls.from_pairs(
            name,
            zip(frame[subject], frame[object], strict=True),
            templates=templates,
            zero_shot_templates=zero_shot_templates,
            kind=kind,
            strict=strict,
        )

    @property
    def objects(self) -> tuple[str, ...]:
        """Distinct objects in order of first appearance."""
        return tuple(dict.fromkeys(fact.object for fact in self.facts))

    @no_booleans
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
        return replace(self, facts=kept), replace(self, facts=test, shot_facts=kept)

    @no_booleans
    def sample(self, n: int, *, seed: int) -> "Relation":
        """The relation with `n` of its facts, each object as often as every other as far as its facts go.

        Raises:
            ValueError: `n` is below 1 or above the number of facts.
        """
        if not 1 <= n <= len(self.facts):
            raise ValueError(
                f"n is {n}; relation {self.name!r} has {len(self.facts)} facts, so give 1 to that many"
            )
        return replace(self, facts=tuple(spread_over_objects(self.facts, n, random.Random(seed))))

    @no_booleans
    def prompts(
        self,
        *,
        shots: int = 0,
        seed: int = 0,
        shots_from: "Relation | None" = None,
        templates: Literal["one", "all"] = "one",
    ) -> tuple[Prompt, ...]:
        """One prompt for each fact, in the order of the facts, its template drawn with `seed`.

        With `shots` the prompt begins with that many examples in the same template, one a line, from distinct
        objects while these last. They never hold the tested subject, as subject or as object, and come from
        training facts: those of `shots_from`, else `shot_facts`, which `split` sets on the test side, else the
        relation's own facts. `shots=0` uses the zero-shot templates.

        Args:
            templates: `"one"` draws a template for each fact, `"all"` gives a prompt for each fact and template.

        Raises:
            ValueError: `shots` is negative, or more than the facts that may be shown; `templates` is neither.
        """
        if shots < 0:
            raise ValueError(f"shots is {shots}; it must be 0 or more")
        if templates not in ("one", "all"):
            raise ValueError(f"templates is {templates!r}; it must be 'one' or 'all'")
        source = shots_from.facts if shots_from is not None else self.shot_facts or self.facts
        folded = [(fact, fact.subject.casefold(), fact.object.casefold()) for fact in source]
        pool = self.templates if shots else self.zero_shot_templates
        prompts = []
        for fact in self.facts:
            # One generator a fact: adding or dropping a fact leaves the other zero-shot prompts as they were.
            generator = random.Random(f"{seed}|{shots}|{fact.subject}|{fact.object}")
            chosen = pool if templates == "all" else [generator.choice(pool)]
            tested = fact.subject.casefold()
            allowed = [
                shot for shot, *texts in folded if shots and not any(_mentions(text, tested) for text in texts)
            ]
            if shots > len(allowed):
                raise ValueError(
                    f"{shots} shots were asked for, but relation {self.name!r} has only {len(allowed)} facts to "
                    f"show that do not name the subject {fact.subject!r}; lower shots"
                )
            for template in chosen:
                examples = spread_over_objects(allowed, shots, generator)
                shown = "".join(f"{_filled(template, shot)} {shot.object}\n" for shot in examples)
                prompts.append(_prompt(shown, template, fact, self.name))
        return tuple(prompts)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _fact(pair: tuple[str, str], where: str) -> Fact:
    subject, object_ = pair
    for role, value in (("subject", subject), ("object", object_)):
        if not isinstance(value, str) or not value.strip():
            raise RelationError(f"{where}: {role} must be a non-empty string, not {value!r}")
        if "\n" in value.strip():
            raise RelationError(f"{where}: {role} must be one line of text, not {value!r}")
    return Fact(subject.strip(), object_.strip())


def _filled(template: str, fact: Fact) -> str:
    return template.replace("{}", fact.subject).rstrip()


def _mentions(text: str, subject: str) -> bool:
    if subject not in text:
        return False
    try:
        find_subject(text, subject)
    except PositionError:
        return False
    return True


def _prompt(shown: str, template: str, fact: Fact, relation: str) -> Prompt:
    text = shown + _filled(template, fact)
    start = len(shown) + template.index("{}")
    try:
        found: int | None = find_subject(text, fact.subject)[0]
    except PositionError:
        found = None
    return Prompt(
        text=text,
        subject=fact.subject,
        object=fact.object,
        relation=relation,
        # Only where a template names the subject again or hides it from the rule, so that equal texts stay equal.
        subject_start=None if found == start else start,
    )
