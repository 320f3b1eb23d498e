"""The kit on plugins that are right, and what it costs to import."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from qzoo.errors import TargetUnavailable, UnknownName, UsageError
from qzoo.testing import CHECKS, Subject, check_model, check_plugin, checks_named, subjects_in, subjects_named
from qzoo.testing.scaffold import scaffold


def findings(subject: Subject, *names: str) -> list[tuple[str, str]]:
    checks = [check for check in CHECKS if check.name in names]
    return [(one.check, one.status) for one in check_model(subject, checks=checks).findings]


def test_a_network_that_is_its_reference_passes(registry, cache):
    entry = registry.model("mobilenet_v3_small")
    named = replace(entry, spec=replace(entry.spec, reference="torchvision.models:mobilenet_v3_small"))
    assert findings(Subject(named, registry, cache), "reference") == [("reference", "passed")]


def test_a_network_of_another_architecture_than_its_reference_fails(registry, cache):
    entry = registry.model("mobilenet_v3_small")
    named = replace(entry, spec=replace(entry.spec, reference="torchvision.models:squeezenet1_1"))
    assert findings(Subject(named, registry, cache), "reference") == [("reference", "failed")]


def test_what_keep_float_names_is_no_fault_and_is_told(tmp_path, cache):
    project = scaffold("kept-net", tmp_path)
    spec = project / "kept_net" / "spec.py"
    spec.write_text(
        spec.read_text().replace('    head="head",\n', '    head="head",\n    keep_float=("head", "add"),\n')
    )
    (subject,) = subjects_in(project, cache)
    (found,) = check_model(subject, checks=[check for check in CHECKS if check.name == "coverage"]).findings
    assert found.status == "passed"
    assert found.evidence.startswith(
        "2 of 4 convolutions, linear layers and adds are INT8, in float as keep_float says"
    )
    assert {"head", "add"} <= set(found.evidence.replace(",", "").split())


@pytest.mark.parametrize("model", ["resnet20", "mfcnn"])
def test_plugins_that_come_with_qzoo_declare_what_they_are(registry, cache, model):
    (subject,) = subjects_named(model, registry, cache)
    names = ("spec", "imports", "builder", "state-dict", "batch", "fusions", "swaps")
    assert {status for _, status in findings(subject, *names)} == {"passed"}


def test_a_plugins_name_stands_for_all_its_models(registry, cache):
    models = [subject.spec.name for subject in subjects_named("mobilenet", registry, cache)]
    assert models == ["mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"]


def test_a_name_that_is_neither_plugin_nor_model_is_told(registry, cache):
    with pytest.raises(UnknownName, match="unknown plugin or model 'resnt20'; did you mean resnet20"):
        subjects_named("resnt20", registry, cache)


def test_checks_are_named_in_any_order_and_run_in_theirs():
    assert [check.name for check in checks_named(["engines", "spec", "engines"])] == ["spec", "engines"]
    assert checks_named([]) == CHECKS


def test_a_check_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(UsageError, match="no check 'coverge'; the checks are spec, imports, builder, globals"):
        checks_named(["coverge"])


def test_where_no_check_applies_there_is_no_score(registry, cache):
    report = check_plugin(subjects_named("resnet20", registry, cache), checks=checks_named(["reference"]))
    assert (report.score, report.counted) == (None, 0)


def test_a_model_is_checked_on_the_runtimes_that_are_named(registry, cache):
    (subject,) = subjects_named("resnet20", registry, cache, ["onnxruntime"])
    assert [backend.name for backend in subject.runtimes()] == ["onnxruntime"]
    assert subject.plan.target.runtime == "onnxruntime"


def test_a_runtime_that_does_not_work_here_is_told(registry, cache):
    probe = registry.backend("tensorrt").probe()
    if probe.works:
        pytest.skip("tensorrt works here")
    with pytest.raises(TargetUnavailable, match=f"target tensorrt doesn't work here: {re.escape(probe.reason)}"):
        subjects_named("resnet20", registry, cache, ["tensorrt"])


def test_without_a_model_there_is_no_score():
    with pytest.raises(UsageError, match="no model"):
        check_plugin([])


def test_every_need_is_a_check_that_comes_before():
    seen: set[str] = set()
    for check in CHECKS:
        assert set(check.needs) <= seen
        assert check.run.__doc__
        seen.add(check.name)


def test_a_test_class_that_names_no_plugin_fails_with_what_to_set(tmp_path):
    (tmp_path / "test_none.py").write_text(
        "from qzoo.testing.pytest import PluginContract\nclass TestNone(PluginContract):\n    pass\n"
    )
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_none.py")
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "TestNone: set exactly one of directory and plugin" in done.stdout


def test_importing_the_kit_loads_neither_torch_nor_pytest():
    heavy = ("torch", "torchvision", "timm", "pytorch_quantization", "onnxruntime", "openvino", "pytest")
    code = f"import sys, qzoo.testing; sys.exit(', '.join(name for name in {heavy!r} if name in sys.modules) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)
