"""TensorRT and TensorRT-RTX: one implementation of two SDKs that share most of their API.

sdk.py imports an SDK and captures its log; gpu.py asks the CUDA driver; lint.py refuses graphs that an SDK would build
wrong; build.py makes an engine; layers.py reads what was planned out of the log; lower.py and backend.py tell qzoo.
"""
