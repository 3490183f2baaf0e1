"""What a function takes and returns, as JSON schemas of its annotations."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import enum
import inspect
import types
import typing
from typing import Any

from ._context import ExecutionContext

Schema = dict[str, Any]

_PLAIN: dict[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    bytes: {"type": "string", "format": "binary"},
    bytearray: {"type": "string", "format": "binary"},
    memoryview: {"type": "string", "format": "binary"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    set: {"type": "array", "uniqueItems": True},
    frozenset: {"type": "array", "uniqueItems": True},
    dict: {"type": "object"},
    type(None): {"type": "null"},
}
_STREAMS = (
    collections.abc.Iterator,
    collections.abc.Iterable,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
)


def is_stream(hint: Any) -> bool:
    """Whether an annotation asks for items one after another."""
    return (typing.get_origin(hint) or hint) in _STREAMS


def schema_of(hint: Any) -> Schema:
    """The schema of an annotation; `{}`, which allows everything, where it says nothing."""
    if hint in (None, type(None)):
        return {"type": "null"}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return schema_of(arguments[0])
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is typing.Union or origin is types.UnionType:
        return {"anyOf": [schema_of(argument) for argument in arguments]}
    if origin in (list, set, frozenset) and arguments:
        return {**_PLAIN[origin], "items": schema_of(arguments[0])}
    if origin is tuple and arguments:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return {"type": "array", "items": schema_of(arguments[0])}
        return {"type": "array", "prefixItems": [schema_of(argument) for argument in arguments]}
    if origin is dict and len(arguments) == 2:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if is_stream(hint):
        return {"type": "array", "items": schema_of(arguments[0]) if arguments else {}}
    known = _PLAIN.get(hint) if isinstance(hint, type) else None
    return dict(known) if known is not None else _of_class(hint)


def _of_class(hint: Any) -> Schema:
    if not isinstance(hint, type):
        return {}
    described = getattr(hint, "model_json_schema", None)
    if described is not None:
        return dict(described())
    if issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
        fields = dataclasses.fields(hint)
        required = [
            field.name
            for field in fields
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        ]
        return {
            "title": hint.__name__,
            "type": "object",
            "properties": {field.name: schema_of(hints[field.name]) for field in fields},
            "required": required,
        }
    return {}


def _default(value: Any) -> Schema:
    plain = value is None or isinstance(value, (str, int, float, bool))
    return {"default": value} if plain and not isinstance(value, enum.Enum) else {}


def parameters_of(function: Any, hints: dict[str, Any]) -> Schema:
    """The parameters of a function as the schema of an object; their order is that of `properties`."""
    properties, required, further = {}, [], False
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints.get(name, Any)
        if hint is ExecutionContext:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            further = True
            continue
        properties[name] = schema_of(hint)
        if parameter.default is parameter.empty:
            required.append(name)
        else:
            properties[name].update(_default(parameter.default))
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": further}


def returns_of(hints: dict[str, Any], streams: bool) -> Schema:
    """What a function returns, or one item of what it yields."""
    if "return" not in hints:
        return {}
    hint = hints["return"]
    if streams and is_stream(hint):
        arguments = typing.get_args(hint)
        return schema_of(arguments[0]) if arguments else {}
    return schema_of(hint)
