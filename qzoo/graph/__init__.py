"""Passes over ONNX graphs with Q/DQ pairs. Each takes an `onnx_ir.Model` and returns a new one."""
