"""Frozen dataclasses from plain values (of JSON or TOML), every key and every type checked."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, get_args, get_origin

from pellucid.errors import UsageError, did_you_mean


def from_plain(cls: type[Any], values: object, place: str) -> Any:
    """A dataclass of that kind; `place` names the file in messages.

    Raises UsageError for an unknown key or a value of the wrong type.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{place}: expected an object with {cls.__name__.lower()} settings, found {values!r:.60}")
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    for key in values:
        if key not in known:
            raise UsageError(f"{place}: {key!r:.60} is no setting here: {did_you_mean(str(key), sorted(known))}")
    return cls(**{key: _value(hints[key], value, f"{place}: {key}") for key, value in values.items()})


def _value(kind: Any, value: object, place: str) -> Any:
    """`value` as `kind`, which is one of the few types that recipes are made of."""
    if dataclasses.is_dataclass(kind):
        cls = typing.cast("type[Any]", kind)
        return value if isinstance(value, cls) else from_plain(cls, value, place)
    if get_origin(kind) in (types.UnionType, typing.Union):
        kinds = [k for k in get_args(kind) if k is not type(None)]
        if value is None and len(kinds) < len(get_args(kind)):
            return None
        # A word is looked for among the words, if there are any, so that the message names them.
        words = [k for k in kinds if get_origin(k) is Literal]
        return _value(words[0] if words and isinstance(value, str) else kinds[0], value, place)
    if get_origin(kind) is tuple and isinstance(value, (list, tuple)):
        return tuple(_value(get_args(kind)[0], item, place) for item in value)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UsageError(
                f"{place}: {value!r:.60} is not among its choices: {did_you_mean(str(value), get_args(kind))}"
            )
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    raise UsageError(f"{place}: expected {getattr(kind, '__name__', kind)}, found {value!r:.60}")
