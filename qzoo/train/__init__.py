"""Training in PyTorch: float, and with fake quantization; in one process or data-parallel.

images.py reads labelled images and makes batches of them; optimize.py makes the optimizer and its schedule; fit.py is
the loop; checkpoint.py keeps its state; parallel.py joins the processes that torchrun started.
"""
