"""qzoo list."""

from __future__ import annotations

from importlib.metadata import version

import pytest

MODELS = ["resnet101", "resnet152", "resnet18", "resnet20", "resnet34", "resnet50"]


def test_every_model_has_a_line_with_its_plugin_and_what_it_is(qzoo):
    ended = qzoo("list")
    rows = {line.split()[0]: line for line in ended.out.splitlines()}
    assert (ended.code, ended.err) == (0, "")
    assert set(MODELS) <= rows.keys()
    assert f"  resnet (qzoo {version('qzoo')})  " in rows["resnet50"]
    assert rows["resnet50"].endswith("ResNet-50, ImageNet-1k, torchvision's weights")


def test_the_columns_line_up(qzoo):
    lines = qzoo("list").out.splitlines()
    assert len({line.index("(") for line in lines if line.startswith("resnet")}) == 1
    assert len({line.index("  ResNet") for line in lines if line.startswith("resnet")}) == 1


def test_json_has_every_model_with_where_it_comes_from(qzoo):
    found = qzoo("list", "--json").json
    assert found.keys() == {"models", "families", "problems"}
    models = {model["name"]: model for model in found["models"]}
    assert set(MODELS) <= models.keys()
    assert models["resnet20"]["provenance"]["plugin"] == "resnet"
    assert models["resnet20"]["provenance"]["distribution"] == "qzoo"
    assert found["problems"] == []


PLUGIN = """
import qzoo

@qzoo.hookimpl
def qzoo_models():
    yield qzoo.ModelSpec(
        name="tiny", summary="a tiny network", builder="cli_tiny.model:tiny", version="1", num_classes=10, head="fc",
        input=qzoo.InputSpec(
            shape=(1, 8, 8), preprocess=qzoo.Preprocess(mode="L", resize=8, crop=8, mean=(0.0,), std=(1.0,))
        ),
    )
    yield qzoo.ModelFamily(prefix="many", summary="many networks", names=lambda: ["one"], resolve=lambda name: 1 / 0)
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with a working plugin, `cli_tiny`, and a broken one, `cli_wreck`."""
    for name, text in (("cli_tiny", PLUGIN), ("cli_wreck", "import a_module_that_does_not_exist\n")):
        (tmp_path / "plugins" / name).mkdir(parents=True)
        (tmp_path / "plugins" / name / "__init__.py").write_text(text)
    return tmp_path / "plugins"


def test_a_plugin_folder_adds_its_models_and_families_without_resolving_them(script, folder):
    ended = script("list", "--plugin-dir", folder)
    rows = {line.split()[0]: line for line in ended.out.splitlines()}
    assert ended.code == 0
    assert rows["tiny"].endswith("a tiny network")
    assert rows["many/*"].endswith("many networks")


def test_the_environment_names_plugin_folders_too(script, folder):
    assert {"tiny"} <= {model["name"] for model in script("list", "--json", QZOO_PLUGINS=str(folder)).json["models"]}


def test_a_broken_plugin_is_said_on_stderr_and_in_json_and_the_others_stay(script, folder):
    ended = script("list", "--json", "--plugin-dir", folder)
    problem = ended.json["problems"][0]
    assert ended.code == 0
    assert problem["plugin"] == "cli_wreck"
    assert problem["message"] == "ModuleNotFoundError: No module named 'a_module_that_does_not_exist'"
    assert "plugin cli_wreck" in ended.err
    assert problem["message"] in ended.err
    assert {"tiny", *MODELS} <= {model["name"] for model in ended.json["models"]}
