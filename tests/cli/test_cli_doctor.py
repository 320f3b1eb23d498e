"""qzoo doctor."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

import onnxruntime
import openvino


def test_it_says_which_targets_work_and_in_which_precisions(qzoo):
    targets = {state["name"]: state for state in qzoo("doctor", "--json").json["targets"]}
    assert {"onnxruntime", "openvino"} <= targets.keys()
    assert targets["onnxruntime"]["works"] is True
    assert targets["onnxruntime"]["precisions"] == ["fp32", "int8"]
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert ("bf16" in targets["openvino"]["precisions"]) == ("BF16" in capabilities)
    assert targets["openvino"]["target"].startswith("openvino/")


def test_it_says_the_versions_that_are_installed(qzoo):
    found = qzoo("doctor", "--json").json
    assert found["packages"]["onnxruntime"] == onnxruntime.__version__
    assert found["packages"]["qzoo"] == version("qzoo")
    assert (found["python"], found["cores"]) == (platform.python_version(), os.cpu_count())


def test_it_says_where_the_store_is(qzoo, home):
    assert qzoo("doctor", "--json").json["home"] == str(home)


def test_it_says_that_this_project_has_not_executed_full_tensorrt(qzoo):
    says = "this project has not executed full TensorRT"
    assert says in qzoo("doctor").out
    assert any(note.startswith("tensorrt") and says in note for note in qzoo("doctor", "--json").json["notes"])


def test_the_text_says_what_json_says(qzoo):
    found, ended = qzoo("doctor", "--json").json, qzoo("doctor")
    lines = [line.split() for line in ended.out.splitlines()]
    assert (ended.code, ended.err) == (0, "")
    assert all([name, has] in lines for name, has in found["packages"].items() if has)
    for state in found["targets"]:
        assert (state["name"], state["works"]) in {("onnxruntime", True), ("openvino", True)} or state["reason"]
        precisions = ", ".join(state["precisions"])
        if state["works"]:
            said = f"{state['target']}: {precisions}"
        elif state["builds"]:
            said = f"builds {precisions}; runs nothing: {state['reason']}"
        else:
            said = f"doesn't work: {state['reason']}"
        assert [state["name"], *said.split()] in lines


def test_a_target_whose_sdk_is_not_installed_says_what_to_install(qzoo, monkeypatch):
    from importlib import metadata

    real = metadata.version

    def without_openvino(name: str) -> str:
        if name == "openvino":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr("qzoo.backends.base.version", without_openvino)
    out = qzoo("doctor").out
    assert "doesn't work: openvino is not installed; pip install openvino" in out


def test_a_broken_plugin_is_shown_and_the_rest_still_is(qzoo, tmp_path):
    (tmp_path / "cli_sick.py").write_text("raise OSError('no disk')\n")
    ended = qzoo("doctor", "--json", "--plugin-dir", tmp_path)
    assert ended.code == 0
    assert [problem["message"] for problem in ended.json["plugin_problems"]] == ["OSError: no disk"]
    assert "plugin cli_sick was left out: OSError: no disk" in qzoo("doctor", "--plugin-dir", tmp_path).out
