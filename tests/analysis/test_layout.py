"""The numpy layout is the C layout: the header is the reference."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from analysis import layout

HEADER = Path(__file__).parents[2] / "pools" / "core" / "include" / "poolport" / "trace.h"
C_TYPES = {"uint64_t": "<u8", "uint32_t": "<u4", "uint16_t": "<u2", "uint8_t": "u1", "char": "S"}


def struct_fields(name: str) -> list[tuple[object, ...]]:
    body = re.search(rf"typedef struct {name} \{{(.*?)\}} {name};", HEADER.read_text(), re.S).group(1)
    fields: list[tuple[object, ...]] = []
    for kind, field, count in re.findall(r"^\s*(\w+) (\w+)(?:\[(\d+)\])?;", body, re.M):
        if kind == "char":
            fields.append((field, f"S{count}"))
        elif count:
            fields.append((field, C_TYPES[kind], (int(count),)))
        else:
            fields.append((field, C_TYPES[kind]))
    return fields


def enumerators(prefix: str) -> dict[str, int]:
    found = re.findall(rf"\b{prefix}(\w+) = (\d+)", HEADER.read_text())
    return {name: int(value) for name, value in found}


@pytest.mark.parametrize(
    ("name", "dtype", "size"),
    [
        ("pp_trace_record", layout.RECORD, 64),
        ("pp_trace_chunk_head", layout.CHUNK_HEAD, 64),
        ("pp_trace_text_head", layout.TEXT_HEAD, 16),
        ("pp_trace_header", layout.HEADER, 128),
    ],
)
def test_dtype_has_the_fields_of_the_c_struct(name: str, dtype: np.dtype, size: int) -> None:
    assert dtype == np.dtype(struct_fields(name))
    assert dtype.itemsize == size


@pytest.mark.parametrize(
    ("prefix", "enum"),
    [("PP_OP_", layout.Op), ("PP_CHUNK_", layout.ChunkKind), ("PP_TEXT_", layout.TextKind)],
)
def test_enumerators_have_the_values_of_the_c_enum(prefix: str, enum: type) -> None:
    values = enumerators(prefix)
    values.pop("COUNT", None)
    assert values == {member.name: member.value for member in enum}


def test_constants_have_the_values_of_the_c_header() -> None:
    sizes = enumerators("PP_TRACE_")
    assert sizes["VERSION"] == layout.TRACE_VERSION
    assert sizes["HEADER_BYTES"] == layout.HEADER_BYTES
    assert sizes["CHUNK_BYTES"] == layout.CHUNK_BYTES
    assert sizes["CHUNK_HEAD_BYTES"] == layout.CHUNK_HEAD_BYTES
    assert sizes["RECORD_BYTES"] == layout.RECORD_BYTES
    assert sizes["RECORDS_PER_CHUNK"] == layout.RECORDS_PER_CHUNK
    assert enumerators("PP_FLAG_")["BORN_BEFORE"] == layout.FLAG_BORN_BEFORE
