"""Does a value read from JSON have the shape that is expected? Where a GPU is, jsonschema may be missing."""

from __future__ import annotations

from typing import Any


def misfit(value: Any, shape: Any, place: str = "the top") -> str | None:
    """The first place where `value` differs from `shape`, in words; None where it fits.

    A shape is a type; a tuple of shapes, one of which must fit; [shape] for a list of any length; or a dictionary from
    key to shape, in which the key `str` stands for every further one. Keys that the shape does not name are refused.
    """
    if isinstance(shape, tuple):
        found = [misfit(value, one, place) for one in shape]
        return None if None in found else max((one for one in found if one), key=_depth)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _expected("a list", value, place)
        return next((wrong for at, one in enumerate(value) if (wrong := misfit(one, shape[0], _in(place, at)))), None)
    if isinstance(shape, dict):
        return _misfit_of_keys(value, shape, place)
    if isinstance(value, shape) and not (isinstance(value, bool) and shape in (int, float)):
        return None
    return _expected(shape.__name__, value, place)


def _misfit_of_keys(value: Any, shape: dict[Any, Any], place: str) -> str | None:
    if not isinstance(value, dict):
        return _expected("an object", value, place)
    missing = [key for key in shape if key is not str and key not in value]
    if missing:
        return f"at {place}: no '{missing[0]}'"
    for key, one in value.items():
        if key not in shape and str not in shape:
            return f"at {place}: unknown '{key}'"
        if wrong := misfit(one, shape.get(key, shape.get(str)), _in(place, key)):
            return wrong
    return None


def _expected(what: str, value: Any, place: str) -> str:
    return f"at {place}: expected {what}, found {str(value)[:40]!r}"


def _in(place: str, part: object) -> str:
    return str(part) if place == "the top" else f"{place}/{part}"


def _depth(wrong: str) -> int:
    """Of alternatives that do not fit, the one that fits furthest explains most."""
    return wrong.split(":")[0].count("/")
