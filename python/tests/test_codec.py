"""Values as items: the bytes of docs/spec/functions.md, and what comes back."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
from typing import Any

import numpy
import pyarrow
import pydantic
import pytest

import r3mes
from r3mes import _native, _values


def back(value: Any, **options: bool) -> Any:
    pickle = options.get("pickle", False)
    return _native.decode(_native.encode(value, pickle=pickle), **options)


PLAIN = [None, True, False, 0, -1, 127, 128, -32, -33, 2**63 - 1, -(2**63), 2**64 - 1, 0.5, math.inf, "", "träin 😀"]
PLAIN += [b"", b"abc", bytes(5000), [], [1, [None]], {}, {"a": {1: 2.5}}, {(1, 2): "key"}, "x" * 70000, [0] * 70000]


@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_plain_values_come_back(value: Any) -> None:
    assert back(value) == value and type(back(value)) is type(value)


def test_plain_values_are_message_pack() -> None:
    assert _native.encode([1, "a", None, {"k": 2.0}]).hex() == "9401a161c081a16bcb4000000000000000"


def test_a_buffer_lies_aligned_after_the_document() -> None:
    item = _native.encode([numpy.arange(3, dtype="<u2"), numpy.ones((2, 2), dtype="<f4")])
    assert item[:1] == b"\x92" and len(item) == 64 + 64 + 16
    assert item[64:70] == b"\0\0\1\0\2\0" and item[128:132] == b"\0\0\x80\x3f"


@pytest.mark.parametrize("item", ["", "c1", "9201", "a56162", "c70501", "d46300", "ddffffffff"])
def test_what_is_no_value_is_refused(item: str) -> None:
    with pytest.raises(ValueError, match="no value"):
        _native.decode(bytes.fromhex(item))


def test_a_buffer_outside_of_the_item_is_refused() -> None:
    whole = _native.encode(numpy.zeros(1000))
    with pytest.raises(ValueError, match="outside of the item"):
        _native.decode(whole[:-1])


def test_too_deep_values_are_refused_both_ways() -> None:
    deep: list[Any] = []
    deep.append(deep)
    with pytest.raises(ValueError, match="part of itself"):
        _native.encode(deep)
    with pytest.raises(ValueError, match="levels"):
        _native.decode(b"\x91" * 1000 + b"\xc0")


@pytest.mark.parametrize("dtype", ["?", "<i1", "<u8", ">i4", "<f2", "<c16", "<U3", "|S4", "<M8[s]"])
def test_arrays_of_every_kind_of_number_come_back(dtype: str) -> None:
    array = numpy.zeros((2, 3), dtype=dtype)
    arrived = back(array.T)
    assert isinstance(arrived, numpy.ndarray) and arrived.dtype == array.dtype and arrived.shape == (3, 2)
    assert (arrived == array.T).all() and arrived.flags.writeable
    assert back(numpy.zeros((0, 4), dtype=dtype)).shape == (0, 4)


def test_numbers_of_numpy_become_plain() -> None:
    assert back(numpy.float32(0.5)) == 0.5 and back(numpy.int64(7)) == 7
    with pytest.raises(TypeError, match="Python objects"):
        _native.encode(numpy.array([object()]))


def test_whoever_offers_dlpack_is_an_array() -> None:
    class Tensor:
        inner = numpy.arange(5, dtype="<i4")

        def __dlpack__(self, **options: Any) -> Any:
            return self.inner.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.inner.__dlpack_device__()

    assert (back(Tensor()) == Tensor.inner).all()


def test_arrow_comes_back() -> None:
    table = pyarrow.table({"a": [1, 2, None], "b": ["x", "y", "z"]})
    assert back(table).equals(table)
    assert back(table.to_batches()[0]).equals(table.to_batches()[0])
    assert back(table["b"]).equals(table["b"])


def test_bytes_may_come_as_views() -> None:
    view = back(bytes(10_000), views=True)
    assert isinstance(view, memoryview) and view.nbytes == 10_000
    assert back(bytearray(b"abc")) == b"abc" and back(memoryview(b"abcd")[::2]) == b"ac"


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    colour: Colour = Colour.RED


@dataclasses.dataclass
class Line:
    points: list[Point]
    named: dict[str, Point] | None = None


class Model(pydantic.BaseModel):
    name: str
    point: Point


def converted(hint: Any, value: Any) -> Any:
    convert = _values.converter(hint)
    assert convert is not None
    return convert(back(value))


def test_objects_with_fields_are_records_and_what_annotations_ask_for() -> None:
    line = Line([Point(1), Point(2)], {"a": Point(3)})
    record = back(line)
    assert isinstance(record, r3mes.Record) and record.type_name == "Line" and record.points[1].x == 2
    assert back(record).named["a"] == {"x": 3, "colour": "red"}
    with pytest.raises(AttributeError, match="Line has no field 'z'"):
        record.z  # noqa: B018
    assert converted(Line, line) == line
    model = Model(name="m", point=Point(4))
    assert converted(list[Model], [model]) == [model]
    assert converted(tuple[Point, int], (Point(5), 6)) == (Point(5), 6)
    assert converted(Point | None, None) is None


def test_moments_need_a_time_zone() -> None:
    moment = datetime.datetime(1969, 7, 20, 20, 17, 40, 123456, tzinfo=datetime.timezone.utc)
    assert back(moment) == moment
    with pytest.raises(ValueError, match="time zone"):
        _native.encode(datetime.datetime(2020, 1, 1))


def test_pickle_needs_both_ends() -> None:
    with pytest.raises(TypeError, match="pickle=True at both ends"):
        _native.encode(1j)
    pickled = _native.encode(1j, pickle=True)
    with pytest.raises(ValueError, match="pickle=True at both ends"):
        _native.decode(pickled)
    assert _native.decode(pickled, pickle=True) == 1j


def test_what_cannot_be_sent_is_said() -> None:
    with pytest.raises(OverflowError, match="64 bits"):
        _native.encode(2**64)
    with pytest.raises(ValueError, match="stream=True"):
        _native.encode(iter([]))
