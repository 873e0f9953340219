"""Relations: facts and templates, seeded splits, and the prompts made from them. Needs no torch."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.errors import RelationError
from lrc_tl.markup.caller_warnings import warn_caller
from lrc_tl.relations.displays import relation_html
from lrc_tl.relations.facts import (
    Fact,
    checked_aliases,
    cleaned,
    in_letters,
    lookalikes,
    name_flaw,
    pair_of,
    require_clean,
    template_flaw,
)
from lrc_tl.relations.prompts import Prompt, spread_over_objects
from lrc_tl.relations.saving import save_relation
from lrc_tl.relations.templates import filled_prompts

KINDS = ("factual", "commonsense", "linguistic", "bias")


@dataclass(frozen=True, kw_only=True)
class Relation:
    """Facts and templates of one relation, checked and free of duplicates.

    Raises:
        TypeError: facts or templates that are no sequence.
        RelationError: no facts, a subject that comes twice, an unknown kind, an empty template list, a template
            without exactly one `{}`, or a name, subject, object or template with control characters or half a
            surrogate pair. Facts must be as `from_pairs` makes them: no white space around, in Unicode form NFC.
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
    rewritten: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """(text in the source, text here) of subjects and objects that were rewritten: escapes such as `\\u00e1` as
    letters, no white space around, in Unicode form NFC."""
    shot_facts: tuple[Fact, ...] = ()
    """Where few-shot examples come from; empty for the facts themselves. `split` gives the test side the training
    facts."""
    source: str = field(default="", compare=False)
    """The file that it was read from, if any."""
    aliases: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(object, further names that count as saying it), as `from_pairs` makes them."""
    all_objects: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """All objects, including those of the relation that this one was split or sampled from."""

    def __post_init__(self) -> None:
        for argument in ("facts", "templates", "zero_shot_templates", "shot_facts"):
            if not isinstance(value := getattr(self, argument), tuple):
                raise TypeError(f"{argument} is a {type(value).__name__}; a Relation holds tuples")
        if flaw := name_flaw(self.name):
            raise RelationError(f"relation {self.name!r}: the name {flaw}")
        # Frozen, and only known from the facts.
        object.__setattr__(self, "all_objects", tuple(dict.fromkeys((*self.all_objects, *self.objects))))
        if not self.facts:
            raise RelationError(f"relation {self.name!r} has no facts; it needs at least one")
        for facts in (self.facts, self.shot_facts):
            require_clean(facts, self.name)
        if self.kind not in KINDS:
            raise RelationError(f"relation {self.name!r}: kind is {self.kind!r}; allowed are {', '.join(KINDS)}")
        for field_name, templates in (
            ("prompt_templates", self.templates),
            ("prompt_templates_zs", self.zero_shot_templates),
        ):
            if not templates:
                raise RelationError(f"relation {self.name!r}: {field_name} is empty; give at least one template")
            for number, template in enumerate(templates):
                if flaw := template_flaw(template):
                    raise RelationError(f"relation {self.name!r}: {field_name}[{number}] = {template!r} {flaw}")

    def __repr__(self) -> str:
        counts = (
            _counted(len(self.facts), "fact"),
            _counted(len(self.objects), "object"),
            _counted(len(self.templates), "template"),
        )
        changes = {
            "repeated": len(self.duplicates),
            "left out, with two objects for a subject": len(self.ambiguous),
            "rewritten": len(self.rewritten),
        }
        also = "".join(f"; {count} {what}" for what, count in changes.items() if count)
        return f"<Relation {self.name!r} ({self.kind}): {', '.join(counts)}{also}>"

    _repr_html_ = relation_html

    def __len__(self) -> int:
        return len(self.facts)

    @classmethod
    def from_pairs(
        cls,
        name: str,
        pairs: Iterable[tuple[str, str]] | Mapping[str, str],
        *,
        templates: str | Sequence[str],
        zero_shot_templates: str | Sequence[str] | None = None,
        kind: str = "factual",
        aliases: Mapping[str, Sequence[str]] | None = None,
        strict: bool = False,
    ) -> "Relation":
        """A relation from (subject, object) pairs, or from a mapping of subjects to their objects.

        Repeated facts are kept once. A subject with two objects is left out whole, with a warning. Both are
        recorded, in `duplicates` and `ambiguous`. White space around subjects and objects is dropped, escapes of
        letters such as `\\u00e1` become letters, and all texts are brought into Unicode form NFC, in which they
        are compared; `rewritten` holds what was changed, and `report()` lists all of it.

        Args:
            templates: several, or one.
            aliases: for an object further names that count as saying it (`{"GM": ["General Motors"]}`), where a
                model's own words are judged: in `filter_known` and hard success, never in log-probabilities.

        >>> pairs = {"Lyon": "France", "Nice": "France", "Osaka": "Japan", "Kyoto": "Japan"}
        >>> cities = Relation.from_pairs("my cities", pairs, templates="{} is a city in")
        >>> train, test = cities.split(seed=0)
        >>> len(train), len(test), sorted(test.objects)
        (2, 2, ['France', 'Japan'])

        Raises:
            TypeError: `pairs` is one string, or templates are no strings.
            RelationError: aliases of no object or that name two, bad templates, an entry that is no pair, a
                subject or object that is not one line of text, no usable fact, or, with `strict`, any duplicate or
                ambiguous fact.
        """
        templates = _one_or_several(templates, "templates")
        if zero_shot_templates is not None:
            zero_shot_templates = _one_or_several(zero_shot_templates, "zero_shot_templates")
        if isinstance(pairs, str | bytes):
            raise TypeError(f"pairs is one string, {pairs[:40]!r}; give (subject, object) pairs")
        given = [
            pair_of(pair, f"relation {name!r}: pair {number}")
            for number, pair in enumerate(pairs.items() if isinstance(pairs, Mapping) else pairs)
        ]
        all_facts = [Fact(cleaned(subject), cleaned(object_)) for subject, object_ in given]
        texts = {text: cleaned(text) for text in chain.from_iterable(given)}
        counts = Counter(all_facts)
        duplicates = tuple(fact for fact, count in counts.items() if count > 1)
        objects_of: dict[str, set[str]] = defaultdict(set)
        for fact in counts:
            objects_of[fact.subject].add(fact.object)
        ambiguous = tuple(fact for fact in counts if len(objects_of[fact.subject]) > 1)
        if strict and (duplicates or ambiguous):
            first_facts = ", ".join(map(str, (*duplicates, *ambiguous)[:5]))
            raise RelationError(
                f"relation {name!r}: {len(duplicates)} repeated facts and {len(ambiguous)} facts of subjects "
                f"with two objects (first: {first_facts}); remove them or load with strict=False"
            )
        relation = cls(
            name=name,
            facts=tuple(fact for fact in counts if len(objects_of[fact.subject]) == 1),
            templates=tuple(map(in_letters, templates)),
            zero_shot_templates=tuple(
                map(in_letters, templates if zero_shot_templates is None else zero_shot_templates)
            ),
            kind=kind,
            duplicates=duplicates,
            ambiguous=ambiguous,
            rewritten=tuple((text, kept) for text, kept in texts.items() if text != kept),
            aliases=checked_aliases(
                aliases or {}, dict.fromkeys(fact.object for fact in counts), f"relation {name!r}"
            ),
        )
        if ambiguous:
            warn_caller(
                f"relation {name!r}: {len(ambiguous)} facts are left out, since their subjects have two objects "
                f"or more: {', '.join(map(str, ambiguous[:4]))}{', ...' * (len(ambiguous) > 4)}; "
                "leave one object for each subject, or drop these facts"
            )
        return relation

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        name: str,
        templates: str | Sequence[str],
        zero_shot_templates: str | Sequence[str] | None = None,
        subject: str = "subject",
        object: str = "object",
        kind: str = "factual",
        aliases: Mapping[str, Sequence[str]] | None = None,
        strict: bool = False,
    ) -> "Relation":
        """A relation from two text columns of a pandas DataFrame, one fact per row; otherwise like `from_pairs`.

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
            aliases=aliases,
            strict=strict,
        )

    save = save_relation

    @property
    def objects(self) -> tuple[str, ...]:
        """Distinct objects in order of first appearance."""
        return tuple(dict.fromkeys(fact.object for fact in self.facts))

    @property
    def lookalikes(self) -> tuple[tuple[str, ...], ...]:
        """Groups of subjects, and of objects, that differ by case or spacing only: perhaps one and the same."""
        subjects = lookalikes(fact.subject for fact in self.facts)
        return (*subjects, *lookalikes(self.objects))

    def report(self) -> str:
        """A summary, and a line for each fact or text that was repeated, left out or rewritten."""
        lines = [repr(self)]
        lines += [f"  given more than once: {fact}" for fact in self.duplicates]
        lines += [f"  left out, its subject has two objects: {fact}" for fact in self.ambiguous]
        lines += [f"  rewritten: {given!r} is {kept!r}" for given, kept in self.rewritten]
        lines += [f"  differ by case or spacing only: {', '.join(map(repr, group))}" for group in self.lookalikes]
        return "\n".join(lines)

    @numbers_checked
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

    @numbers_checked
    def sample(self, n: int, *, seed: int) -> "Relation":
        """The relation with `n` of its facts, balanced over objects as far as their facts allow.

        Raises:
            ValueError: `n` is below 1 or above the number of facts.
        """
        if not 1 <= n <= len(self.facts):
            raise ValueError(
                f"n is {n}; relation {self.name!r} has {len(self.facts)} facts, so give 1 to that many"
            )
        return replace(self, facts=tuple(spread_over_objects(self.facts, n, random.Random(seed))))

    @numbers_checked
    def prompts(
        self,
        *,
        shots: int = 0,
        seed: int = 0,
        shots_from: "Relation | None" = None,
        templates: Literal["one", "all"] = "one",
    ) -> tuple[Prompt, ...]:
        """One prompt for each fact, in the order of the facts, its template drawn with `seed`.

        With `shots` the prompt begins with that many examples in the same template, one per line, from distinct
        objects as long as there are any. They never hold the tested subject, as subject or as object, and come
        from training facts: those of `shots_from`, else `shot_facts`, which `split` sets on the test side, else
        the relation's own facts. `shots=0` uses the zero-shot templates. A prompt with examples also holds what
        `shots=0` gives for its fact and the same seed (`Prompt.zero_shot`).

        White space at the end of a template is dropped, and the object follows after a space; but a template that
        ends in a line break is final (`Prompt.joint` is ""): it stays as it is, and the object follows directly.

        Args:
            templates: `"one"` draws a template for each fact, `"all"` gives a prompt for each fact and template.

        Raises:
            ValueError: `shots` is negative, or more than the facts that may be shown; `templates` is neither.
        """
        if shots < 0:
            raise ValueError(f"shots is {shots}; it must be 0 or more")
        if templates not in ("one", "all"):
            raise ValueError(f"templates is {templates!r}; it must be 'one' or 'all'")
        return filled_prompts(
            self,
            shots_from.facts if shots_from is not None else self.shot_facts or self.facts,
            shots=shots,
            seed=seed,
            every_template=templates == "all",
        )


def _one_or_several(given: str | Sequence[str], name: str) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else as_tuple(given, name, str)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
