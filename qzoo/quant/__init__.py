"""Quantized modules, their quantizers, and the passes that put them into a network and calibrate them."""
