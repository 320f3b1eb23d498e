"""Datasets, the calibration sampler and the one preprocessing. Torch-free."""
