"""The canonical JSON of a model: every node, axis and array, read back without loss."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bilevelpy.exporters.base import Files, Options
from bilevelpy.ir.serial import as_json, document

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

# Values of an array that are written into the text; larger arrays go beside it.
INLINE = 5_000


class CanonicalJson:
    """The whole model, whatever its class."""

    name: ClassVar[str] = "json"
    title: ClassVar[str] = "the model itself as JSON, read back by `bilevelpy import`"
    suffix: ClassVar[str] = ".json"
    consumer: ClassVar[str] = "bilevelpy import {file} --out MODEL.blv"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The document, with arrays of more than 5,000 values in ``stem.npz`` beside it."""
        large: dict[str, np.ndarray[Any, Any]] = {}

        def keep(array: np.ndarray[Any, Any]) -> str | None:
            if array.size <= INLINE:
                return None
            name = f"a{len(large)}"
            large[name] = array
            return name

        content = as_json(document(bound), keep)
        if large:
            content["arrays"] = f"{stem}.npz"
        text = _text(content)
        if not large:
            return Files(text)
        stream = io.BytesIO()
        np.savez_compressed(stream, allow_pickle=False, **large)
        return Files(text, {".npz": stream.getvalue()})


def _text(content: dict[str, Any]) -> str:
    """One line for each object, declaration and array, so that differences show."""

    def dumps(value: Any) -> str:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)

    parts: list[str] = []
    for key, value in content.items():
        if key == "objects":
            inner = ",\n".join(f"  {dumps(v)}" for v in value)
            parts.append(f"{dumps(key)}: [\n{inner}\n]")
        elif isinstance(value, dict):
            inner = ",\n".join(f"  {dumps(k)}: {dumps(v)}" for k, v in value.items())
            parts.append(f"{dumps(key)}: {{\n{inner}\n}}")
        else:
            parts.append(f"{dumps(key)}: {dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
