"""A ``.pt2`` program of PyTorch with the model's functions, for people who bring their own loop."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, ClassVar

import torch

from bilevelpy.errors import ExportError
from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.graphs.traced import trace

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram


class TorchGraph:
    """Any model whose functions torch computes; data is part of the file."""

    name: ClassVar[str] = "torch"
    title: ClassVar[str] = "PyTorch program (.pt2): F, f, gradients, Hessian and cross products"
    suffix: ClassVar[str] = ".pt2"
    consumer: ClassVar[str] = "torch.export.load('{file}').module()(x, y, v)"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The program, and ``stem.layout.json``: where the variables lie in ``x`` and ``y``."""
        traced = trace(bound, "a torch program")
        # Order matters: an export that fails leaves torch in a state in which later traces are
        # wrong, hence the trace (and its check) comes first.
        program = torch.export.export(traced.module, traced.point, strict=False)
        stream = io.BytesIO()
        try:
            torch.export.save(program, stream)
        except RuntimeError as error:
            if all(t.numel() for t in program.state_dict.values()):
                raise
            raise ExportError(
                "a torch program holds no arrays without entries, such as the members of a sum or "
                "product over an empty set: bind other data, or export to `onnx`"
            ) from error
        return Files(stream.getvalue(), {".layout.json": traced.layout()})
