"""A program: writes names.txt anew, from the timm that is installed."""

from __future__ import annotations

import timm

from qzoo_timm.spec import NAMES


def found() -> list[str]:
    """Every architecture, and every pretrained network as architecture.tag."""
    return sorted({*timm.list_models(), *timm.list_pretrained()})


if __name__ == "__main__":
    NAMES.write_text("\n".join(found()) + "\n", "utf-8")
