"""From a model's name to a bundle. The only place that knows the order of the stages.

plan.py decides everything without loading torch; prepare.py makes the graphs (torch); assemble.py makes, checks and
measures an engine from them; rebuild.py does so from a bundle's own portable graph, again without torch.
"""

from __future__ import annotations

from qzoo.pipeline.build import build, build_all, export_graph, stored
from qzoo.pipeline.plan import Options, Plan, make_plan
from qzoo.pipeline.rebuild import rebuild

__all__ = ["Options", "Plan", "build", "build_all", "export_graph", "make_plan", "rebuild", "stored"]
