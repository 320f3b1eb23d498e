"""`python -m qzoo`, which torchrun needs: `torchrun --nproc-per-node 2 -m qzoo train ...`."""

from qzoo.cli.main import entry

if __name__ == "__main__":
    entry()
