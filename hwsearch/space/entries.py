"""Lists in a file model: every mistake of every entry, each at the entry where it is."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import AfterValidator, ValidationError, WrapValidator
from pydantic_core import InitErrorDetails, PydanticCustomError


def all_mistakes(found: list[InitErrorDetails]) -> ValidationError:
    """Several mistakes as one error to raise in a validator.

    pydantic puts the location of the validated field before each of theirs.
    """
    return ValidationError.from_exception_data("SearchSpace", found)


def mistake(location: tuple[int | str, ...], text: str) -> InitErrorDetails:
    """One mistake at a location inside the validated value."""
    # pydantic fills in "{...}" of a message only where a context is given: none is.
    return InitErrorDetails(type=PydanticCustomError("value", text), loc=location, input=None)


def _with_repeats(value: object, handler: Callable[[object], object]) -> object:
    """Check the entries of a list, that there is one and none twice; all mistakes in one error."""
    found: list[InitErrorDetails] = []
    if isinstance(value, list | tuple):
        # Not min_length: pydantic counts the valid entries, and would blame the list for theirs.
        if not value:
            raise ValueError("the list is empty; give at least one entry")
        keys = [repr(_identity(entry)) for entry in value]
        found += [
            mistake((index,), f"{key} is given twice; keep one of them")
            for index, key in enumerate(keys)
            if key in keys[:index]
        ]
    try:
        checked = handler(value)
    except ValidationError as error:
        found += [
            InitErrorDetails(
                type=PydanticCustomError(item["type"], item["msg"]),
                loc=item["loc"],
                input=item["input"],
            )
            for item in error.errors()
        ]
    if found:
        raise all_mistakes(found)
    return checked


def _identity(entry: object) -> object:
    """What makes an entry the same as another: a backbone's name, a number's value, or itself."""
    if isinstance(entry, float) and entry.is_integer():
        return int(entry)
    return entry["name"] if isinstance(entry, Mapping) and "name" in entry else entry


def _ascending(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(sorted(values))


#: Annotates a list that is not empty and whose entries differ; what is wrong is reported beside
#: the entries' own mistakes.
Unique: Final = WrapValidator(_with_repeats)

#: Annotates a list of numbers that is kept in ascending order, however it was written.
Ascending: Final = AfterValidator(_ascending)
