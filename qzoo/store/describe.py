"""What a bundle's image manifest and its descriptor in an index say of it, for whoever has only these."""

from __future__ import annotations

import platform

from qzoo.records import Manifest, Measurement, Target
from qzoo.store.layout import BUNDLE_ID, TARGET, Descriptor

VERSION, OS, VNNI = "dev.qzoo.runtime.version", "dev.qzoo.os", "dev.qzoo.vnni"
MODEL, PRECISION, LICENCE = "dev.qzoo.model", "dev.qzoo.precision", "org.opencontainers.image.licenses"
ACCURACY, FIDELITY, SIZE = "dev.qzoo.accuracy", "dev.qzoo.sqnr_db", "dev.qzoo.size_bytes"


def operating_system() -> str:
    """This machine's, as engines are told apart by it."""
    return platform.system().lower()


def describe(manifest: Manifest, measurement: Measurement) -> dict[str, str]:
    """A bundle's annotations. What wasn't measured is left out."""
    inputs, target = manifest.inputs, manifest.inputs.target
    measured = {
        ACCURACY: None if measurement.accuracy is None else round(measurement.accuracy["engine"].fraction, 6),
        "dev.qzoo.accuracy.float": None
        if measurement.accuracy is None
        else round(measurement.accuracy["float"].fraction, 6),
        FIDELITY: None if measurement.fidelity is None else measurement.fidelity.sqnr_db,
        "dev.qzoo.top1_agreement": None if measurement.fidelity is None else measurement.fidelity.top1_agreement,
        SIZE: measurement.size_bytes["engine"],
        LICENCE: inputs.weights.licence,
        "dev.qzoo.plugin.version": inputs.plugin_version,
        "dev.qzoo.calibration": manifest.files["calibration.json"].sha256
        if "calibration.json" in manifest.files
        else None,
    }
    return {
        BUNDLE_ID: manifest.id,
        TARGET: str(target),
        VERSION: target.version,
        OS: operating_system(),
        VNNI: str(target.vnni).lower(),
        MODEL: inputs.model,
        PRECISION: inputs.recipe.precision,
        "dev.qzoo.plugin": manifest.provenance.plugin,
        "dev.qzoo.plugin.source": inputs.plugin_source_sha256,
        "dev.qzoo.weights": inputs.weights.sha256,
        "dev.qzoo.verified": measurement.verified,
        **{key: str(value) for key, value in measured.items() if value is not None},
    }


def target_of(child: Descriptor) -> Target | None:
    """The target that a descriptor's annotations name; None where they don't."""
    runtime, slash, isa = child.annotations.get(TARGET, "").partition("/")
    version = child.annotations.get(VERSION)
    if not slash or version is None:
        return None
    return Target(runtime=runtime, isa=isa, version=version, vnni=child.annotations.get(VNNI) != "false")
