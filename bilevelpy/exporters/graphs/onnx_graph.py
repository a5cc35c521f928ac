"""An ONNX graph with the model's functions, for any language that has an ONNX runtime."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from bilevelpy.errors import ExportError, UsageError
from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.graphs.onnx_prepare import prepared
from bilevelpy.exporters.graphs.traced import INPUTS, OUTPUTS, trace

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

LIMIT = 2**31 - 1
"""Bytes of one ONNX file: it is one message of protocol buffers."""
TARGET = "an ONNX graph"


class OnnxGraph:
    """Any model whose functions are made of the operators of ONNX; data is part of the file."""

    name: ClassVar[str] = "onnx"
    title: ClassVar[str] = "ONNX graph: F, f, gradients, Hessian and cross products"
    suffix: ClassVar[str] = ".onnx"
    consumer: ClassVar[str] = (
        "onnxruntime.InferenceSession('{file}').run(None, {{'x': x, 'y': y, 'v': v}})"
    )

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The graph, and ``stem.layout.json``: where the variables lie in ``x`` and ``y``."""
        try:
            import onnx
            import onnxscript  # noqa: F401 - that it is there
        except ImportError:
            raise UsageError(
                "onnx needs the packages `onnx` and `onnxscript`: pip install onnx onnxscript"
            ) from None
        traced = trace(bound, TARGET)
        model = _translated(prepared(traced.module, traced.point), traced.point)
        if model.ByteSize() > LIMIT:
            raise ExportError(f"{TARGET} holds at most 2 GB, this one has more (torch holds it)")
        onnx.checker.check_model(model)
        model.producer_name = "bilevelpy"
        model.graph.name = bound.program.name
        return Files(model.SerializeToString(), {".layout.json": traced.layout()})


def _translated(module: torch.fx.GraphModule, point: tuple[torch.Tensor, ...]) -> Any:
    # The exporter tells its progress and its own deprecations.
    loggers = [logging.getLogger(n) for n in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                module, point, dynamo=True, verbose=False,
                input_names=list(INPUTS), output_names=list(OUTPUTS),
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        reason = next((line for line in str(cause).splitlines() if line.strip()), "no reason")
        raise ExportError(f"{TARGET} cannot hold this model: {reason}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    assert made is not None
    return made.model_proto
