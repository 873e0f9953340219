"""How the fields of stored records stand in JSON: their types say it, and reading checks it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, get_type_hints


def _as_it_is(value: Any, _place: str) -> Any:
    return value


@dataclass(frozen=True)
class JsonForm:
    """How a field stands in JSON, for `Annotated[type, JsonForm(...)]`."""

    check: Callable[[Any], bool]
    """Whether a JSON value can be the field's."""
    read: Callable[[Any, str], Any] = _as_it_is
    """The field from its JSON value; the second argument is the place in the file, for errors."""
    write: Callable[[Any], Any] = lambda value: value


def is_text(value: Any) -> bool:
    """Whether this is a string."""
    return isinstance(value, str)


def is_whole(value: Any) -> bool:
    """Whether this is an integer; a boolean is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """Whether this is an integer from 0 upwards."""
    return is_whole(value) and value >= 0


def is_number(value: Any) -> bool:
    """Whether this is a finite number."""
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def is_share(value: Any) -> bool:
    """Whether this is a number from 0 to 1."""
    return is_number(value) and 0 <= value <= 1


def is_truth(value: Any) -> bool:
    """Whether this is a boolean."""
    return isinstance(value, bool)


def or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """The check, which lets None pass too."""
    return lambda value: value is None or check(value)


def list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether a value is a list whose items all pass the check."""
    return lambda value: isinstance(value, list) and all(map(check, value))


def mapping_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether a value is a mapping whose values all pass the check."""
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _tuple_of(check: Callable[[Any], bool]) -> JsonForm:
    return JsonForm(list_of(check), lambda value, _: tuple(value), list)


Extra: TypeAlias = Mapping[str, Any]
"""What a file holds beside the known fields; it is written again, at the end."""
Text: TypeAlias = Annotated[str, JsonForm(is_text)]
Whole: TypeAlias = Annotated[int, JsonForm(is_whole)]
Count: TypeAlias = Annotated[int, JsonForm(is_count)]
CountOrNone: TypeAlias = Annotated[int | None, JsonForm(or_none(is_count))]
Number: TypeAlias = Annotated[float, JsonForm(is_number)]
NumberOrNone: TypeAlias = Annotated[float | None, JsonForm(or_none(is_number))]
Share: TypeAlias = Annotated[float, JsonForm(is_share)]
Texts: TypeAlias = Annotated[tuple[str, ...], _tuple_of(is_text)]
Counts: TypeAlias = Annotated[tuple[int, ...], _tuple_of(is_count)]
Numbers: TypeAlias = Annotated[tuple[float, ...], _tuple_of(is_number)]
Outcomes: TypeAlias = Annotated[tuple[bool, ...], _tuple_of(is_truth)]


_FORMS: dict[Any, dict[str, JsonForm]] = {}


def json_forms(kind: type) -> dict[str, JsonForm]:
    """The fields of a dataclass that have a form in JSON, in order."""
    if kind not in _FORMS:  # type hints take long to resolve, and a result asks for them for every point
        _FORMS[kind] = {
            name: form
            for name, hint in get_type_hints(kind, include_extras=True).items()
            for form in getattr(hint, "__metadata__", ())
            if isinstance(form, JsonForm)
        }
    return _FORMS[kind]


def read_fields(kind: type, value: Any, place: str) -> dict[str, Any]:
    """The fields of `kind` from a JSON object, each checked; `place` says where in the file the object stands.

    Raises:
        ValueError: it is no object, or a field is missing or wrong; the text names the place.
    """
    require_mapping(value, place)
    forms = json_forms(kind)
    for name, form in forms.items():
        require_field(value, name, form.check, place)
    return {name: form.read(value[name], f"{place}[{name!r}]") for name, form in forms.items()}


def written_fields(record: Any) -> dict[str, Any]:
    """The JSON values of a record's fields that have a form."""
    return {name: form.write(getattr(record, name)) for name, form in json_forms(type(record)).items()}


def written_rows(rows: Iterable[Any]) -> list[Any]:
    """The JSON values of several records or tuples."""
    return [row.to_dict() if hasattr(row, "to_dict") else list(row) for row in rows]


def other_fields(value: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """What a JSON object holds beside the known fields."""
    names = {*known}
    return {name: entry for name, entry in value.items() if name not in names}


def require_mapping(value: Any, place: str) -> None:
    """Raise ValueError unless this is a JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"{place} must be a mapping, not {shortened(value)}")


def require_field(value: Mapping[str, Any], name: str, check: Callable[[Any], bool], place: str) -> None:
    """Raise ValueError unless the JSON object has this field and the field passes the check."""
    if name not in value:
        raise ValueError(f"{place} has no field {name!r}")
    if not check(value[name]):
        raise ValueError(f"{place}[{name!r}] cannot be {shortened(value[name])}")


def shortened(value: Any) -> str:
    """A value as an error shows it, in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
