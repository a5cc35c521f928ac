"""The functions of a model as graphs of tensor operations: torch, ONNX."""
