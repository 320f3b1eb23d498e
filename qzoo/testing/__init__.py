"""The kit that says whether a plugin does what it declares, on its real networks and through the real pipeline.

`check_model` runs every check of one model and gives a report; each check is a plain function of a `Subject` in
contract.py, network.py or engines.py. Authors use `qzoo plugin check`, or subclass `PluginContract` of
qzoo/testing/pytest.py, the only file here that imports pytest. A check that loads torch does so when it is called.
"""

from __future__ import annotations

from qzoo.testing.evidence import Evidence, Fault, Finding, ModelReport, PluginReport
from qzoo.testing.run import CHECKS, Check, check_model, check_plugin, checks_named
from qzoo.testing.subject import Subject, subjects_in, subjects_named

__all__ = [
    "CHECKS",
    "Check",
    "Evidence",
    "Fault",
    "Finding",
    "ModelReport",
    "PluginReport",
    "Subject",
    "check_model",
    "check_plugin",
    "checks_named",
    "subjects_in",
    "subjects_named",
]
