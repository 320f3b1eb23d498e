"""The JSON Schema of every `--json` object and of every JSON file in a bundle."""

from __future__ import annotations

import msgspec

from qzoo.cli.bench import BenchObject
from qzoo.cli.catalog import CatalogObject
from qzoo.cli.config import ConfigObject
from qzoo.cli.eval import EvalsObject
from qzoo.cli.key.record import KeyObject, KeysObject
from qzoo.cli.list import ListObject
from qzoo.cli.login import LoginObject
from qzoo.cli.plugin.new import NewPluginObject
from qzoo.cli.pull import PullObject
from qzoo.cli.run import RunObject
from qzoo.cli.sign import SignObject
from qzoo.cli.store.gc import GcObject
from qzoo.cli.store.ls import ListedStore
from qzoo.cli.store.rm import RemovedObject
from qzoo.cli.store.verify import VerifiedObject
from qzoo.cli.tags import TagsObject
from qzoo.cli.trtexec import TrtexecObject
from qzoo.cli.verify import VerifyObject
from qzoo.doctor import Findings
from qzoo.pipeline.evaluate import Evaluation
from qzoo.records import (
    CalibrationTable,
    EngineRecord,
    LayerTable,
    Manifest,
    Measurement,
    PlanRecord,
    RangesRecord,
    encode,
)
from qzoo.report.objects import (
    BuildObject,
    BuildsObject,
    EngineObject,
    ModelObject,
    PlanObject,
    PlansObject,
    TrainedObject,
)
from qzoo.testing.evidence import PluginReport
from qzoo.zoo.push import Pushed

OBJECTS: dict[str, type] = {
    "bench": BenchObject,
    "build": BuildObject,
    "builds": BuildsObject,
    "catalog": CatalogObject,
    "config": ConfigObject,
    "doctor": Findings,
    "dry-run": PlanObject,
    "dry-runs": PlansObject,
    "eval": Evaluation,
    "evals": EvalsObject,
    "info-engine": EngineObject,
    "info-model": ModelObject,
    "key": KeyObject,
    "keys": KeysObject,
    "list": ListObject,
    "login": LoginObject,
    "plugin-check": PluginReport,
    "plugin-new": NewPluginObject,
    "pull": PullObject,
    "push": Pushed,
    "run": RunObject,
    "sign": SignObject,
    "store-gc": GcObject,
    "store-ls": ListedStore,
    "store-rm": RemovedObject,
    "store-verify": VerifiedObject,
    "tags": TagsObject,
    "train": TrainedObject,
    "trtexec": TrtexecObject,
    "verify": VerifyObject,
}
"""What a verb prints, by the name of its schema."""

FILES: dict[str, type] = {
    "calibration.json": CalibrationTable,
    "engine.json": EngineRecord,
    "layers.json": LayerTable,
    "manifest.json": Manifest,
    "measurement.json": Measurement,
}
"""What a bundle's files hold; engine.json stands for `<engine>.json`."""

BESIDE: dict[str, type] = {
    "plan.json": PlanRecord,
    "ranges.json": RangesRecord,
}
"""What lies beside other files: `<engine>.json` of `qzoo trtexec`, `<graph>.ranges.json` of `qzoo export`."""


def schema(name: str) -> bytes:
    """The JSON Schema (2020-12) of one of OBJECTS, FILES or BESIDE, as docs/schema/ keeps it."""
    kind = {**OBJECTS, **FILES, **BESIDE}[name]
    made = msgspec.json.schema(kind)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name}
    return encode({**head, **made})


def file_name(name: str) -> str:
    """The name of a schema's file in docs/schema/."""
    return f"{name.removesuffix('.json')}.schema.json"
