"""What values become on the wire, and back: the Python half of the codec.

docs/spec/functions.md says under "Values" what travels.
"""

from __future__ import annotations

import datetime
import enum
import types
import typing
from typing import Any, Callable

from . import _native

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


class Record(dict[str, Any]):
    """An object with named fields, as its sender's type had them: `record.name` and `record["name"]`."""

    #: The name of the sender's type.
    type_name: str

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{self.type_name} has no field {name!r}") from None


def _object(name: str, fields: dict[str, Any]) -> Record:
    record = Record(fields)
    object.__setattr__(record, "type_name", name)
    return record


def _moment(seconds: int, nanoseconds: int) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(seconds=seconds, microseconds=nanoseconds // 1000)


def _unpickle(data: bytes) -> Any:
    import pickle

    return pickle.loads(data)


def _is_iterator(value: Any) -> bool:
    kind = type(value)
    return hasattr(kind, "__next__") or hasattr(kind, "__anext__")


def _replace(value: Any, pickle: bool) -> Any:
    """What stands for a value that MessagePack has no type for."""
    kind = type(value)
    if isinstance(value, Record):
        return _native.Named(value.type_name, dict(value))
    for plain in (str, int, float, list, dict, tuple, bytes):
        if issubclass(kind, plain):
            return value.value if isinstance(value, enum.Enum) else _plainly(value, plain)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (bytearray, memoryview)):
        return _of_buffer(value)
    if hasattr(kind, "__dataclass_fields__"):
        from dataclasses import fields

        names = [field.name for field in fields(value)]
        return _native.Named(kind.__name__, {name: getattr(value, name) for name in names})
    if hasattr(kind, "__pydantic_validator__"):
        return _native.Named(kind.__name__, {name: getattr(value, name) for name in kind.model_fields})
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, datetime.datetime):
        return _of_moment(value)
    array = _array(value)
    if array is not None:
        return array
    if _is_iterator(value):
        return _native.Streamed(value)
    if pickle:
        import pickle as pickling

        return _native.Pickled(pickling.dumps(value, protocol=5))
    raise TypeError(
        f"a {kind.__module__}.{kind.__qualname__} cannot be sent: send plain values, dataclasses, pydantic models, "
        "arrays or bytes, or allow pickle=True at both ends if they trust each other"
    )


def _plainly(value: Any, plain: type) -> Any:
    """A value of a subclass as one of the class itself."""
    names = getattr(value, "_fields", None)
    if plain is tuple and names is not None:
        return _native.Named(type(value).__name__, dict(zip(names, value)))
    return plain(value)


def _of_moment(value: datetime.datetime) -> Any:
    if value.tzinfo is None:
        raise ValueError(f"{value!r} does not say its time zone: use datetime.now(timezone.utc), or send text")
    return _native.Moment((value - _EPOCH) // datetime.timedelta(microseconds=1))


def _of_buffer(value: bytearray | memoryview) -> Any:
    view = memoryview(value)
    if len(view) == view.nbytes == 0:
        return b""
    if not view.c_contiguous:
        view = memoryview(bytes(view))
    kind = "memoryview" if isinstance(value, memoryview) else "bytes"
    return _native.Raw(kind, "|u1", [view.nbytes], view.cast("B"))


def _array(value: Any) -> Any:
    """An array, a table or a tensor as raw memory."""
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    if package == "pyarrow":
        return _of_arrow(value)
    if package == "torch" and hasattr(value, "untyped_storage"):
        return _of_torch(value)
    if hasattr(kind, "__array_interface__") or package == "numpy":
        import numpy

        if isinstance(value, numpy.ndarray):
            return _of_numpy(value, "array")
        if isinstance(value, numpy.generic):
            return value.item()
    if hasattr(kind, "__dlpack__"):
        import numpy

        return _of_numpy(numpy.from_dlpack(value), "array")
    return None


def _of_numpy(value: Any, kind: str) -> Any:
    import numpy

    if value.dtype.hasobject:
        raise TypeError("an array of Python objects cannot be sent: give it a dtype of numbers or text")
    if value.dtype.names is not None:
        raise TypeError("an array of records cannot be sent: send its fields one by one, or an Arrow table")
    dtype, shape = value.dtype.str, list(value.shape)
    memory = numpy.ascontiguousarray(value)
    return _native.Raw(kind, dtype, shape, memory.reshape(-1).view("u1"))


def _of_torch(value: Any) -> Any:
    import torch

    tensor = value.detach().cpu().contiguous()
    dtype = str(tensor.dtype).removeprefix("torch.")
    memory = tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b""
    return _native.Raw("torch", dtype, list(tensor.shape), memory)


def _of_arrow(value: Any) -> Any:
    import pyarrow

    table, kind = value, "table"
    if isinstance(value, pyarrow.RecordBatch):
        table, kind = pyarrow.Table.from_batches([value]), "batch"
    elif isinstance(value, (pyarrow.Array, pyarrow.ChunkedArray)):
        table, kind = pyarrow.table({"": value}), "column"
    elif not isinstance(value, pyarrow.Table):
        return None
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    memory = sink.getvalue()
    return _native.Raw("arrow", kind, [memory.size], memory)


def _restore(kind: str, dtype: str, shape: tuple[int, ...], view: memoryview) -> Any:
    """An array over memory that was received."""
    if kind in ("bytes", "memoryview"):
        return view
    if kind == "array":
        import numpy

        return numpy.frombuffer(view, dtype=numpy.dtype(dtype)).reshape(shape)
    if kind == "torch":
        import torch

        if not len(view):
            return torch.empty(shape, dtype=getattr(torch, dtype))
        return torch.frombuffer(view, dtype=getattr(torch, dtype)).reshape(shape)
    if kind == "arrow":
        import pyarrow

        table = pyarrow.ipc.open_stream(pyarrow.py_buffer(view)).read_all()
        if dtype == "batch":
            return table.combine_chunks().to_batches()[0] if table.num_rows else table.to_batches()
        return table.column(0) if dtype == "column" else table
    raise ValueError(f"a buffer of unknown kind {kind!r}")


Converter = Callable[[Any], Any]


def converter(hint: Any) -> Converter | None:
    """What makes of a plain value the one that an annotation asks for; nothing where that is the same."""
    if hint is None or hint is Any or isinstance(hint, (str, typing.TypeVar)):
        return None
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return converter(arguments[0])
    if origin is typing.Union or origin is types.UnionType:
        others = [argument for argument in arguments if argument is not type(None)]
        return _converter_of_optional(converter(others[0]) if len(others) == 1 else None)
    if origin in (list, set, frozenset, tuple):
        return _converter_of_list(origin, arguments)
    if origin is dict and len(arguments) == 2:
        inner = converter(arguments[1])
        return None if inner is None else lambda value: {key: inner(entry) for key, entry in value.items()}
    if not isinstance(hint, type):
        return None
    if hint in (tuple, set, frozenset):
        return hint
    validate = getattr(hint, "model_validate", None)
    if validate is not None:
        return lambda value: value if isinstance(value, hint) else validate(value)
    if hasattr(hint, "__dataclass_fields__"):
        return _converter_of_dataclass(hint)
    if issubclass(hint, enum.Enum):
        return hint
    return None


def _converter_of_optional(inner: Converter | None) -> Converter | None:
    if inner is None:
        return None
    return lambda value: None if value is None else inner(value)


def _converter_of_list(origin: type, arguments: tuple[Any, ...]) -> Converter | None:
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        inners = [converter(argument) or (lambda value: value) for argument in arguments]
        return lambda value: tuple(inner(entry) for inner, entry in zip(inners, value, strict=True))
    inner = converter(arguments[0]) if arguments else None
    if inner is None:
        return None if origin is list else origin
    return lambda value: origin(inner(entry) for entry in value)


def _converter_of_dataclass(hint: type) -> Converter:
    from dataclasses import fields as fields_of

    made: dict[str, Converter | None] = {}

    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if not made:
            hints = typing.get_type_hints(hint)
            made.update({field.name: converter(hints[field.name]) for field in fields_of(hint)})
        fields = {}
        for name, entry in value.items():
            inner = made.get(name)
            fields[name] = entry if inner is None else inner(entry)
        return hint(**fields)

    return convert


def hints_of(function: Any) -> dict[str, Any]:
    """The annotations of a function, as far as they can be resolved."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001 - a name that exists only for type checkers
        return {name: hint for name, hint in getattr(function, "__annotations__", {}).items() if not isinstance(hint, str)}


def wants_views(hints: dict[str, Any]) -> bool:
    """Whether bytes are to come as views."""
    return memoryview in hints.values()


def install() -> None:
    """Tells the native half who makes values."""
    from .errors import from_failure

    _native.set_hooks(_replace, _restore, _object, _unpickle, _moment, from_failure)


install()
