"""Plugins: found, checked, and kept from harming each other. Each is a real folder of Python files."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from qzoo.errors import BrokenPlugin, DuplicateName, SpecError, UnknownHook, UnknownName, UsageError
from qzoo.registry import Registry, source_digest
from qzoo.spec import ModelSpec

SPEC = """
import qzoo

def spec(name):
    pre = qzoo.Preprocess(resize=8, crop=8, mean=(0, 0, 0), std=(1, 1, 1))
    return qzoo.ModelSpec(
        name=name, summary="a test", builder="nowhere:nothing", version="1", num_classes=2, head="fc",
        input=qzoo.InputSpec(shape=(3, 8, 8), preprocess=pre),
    )
"""
MODEL = SPEC + "\n@qzoo.hookimpl\ndef qzoo_models():\n    yield spec({name!r})\n"


@pytest.fixture(autouse=True)
def own_path(monkeypatch):
    """What plugins put on sys.path ends with the test; module names are each test's own."""
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def folder(tmp_path) -> Path:
    place = tmp_path / "plugins"
    place.mkdir()
    return place


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def load(*folders: Path, env: dict[str, str] | None = None) -> Registry:
    return Registry.load(folders, env=env or {})


def names(registry: Registry) -> set[str]:
    return {entry.spec.name for entry in registry.models()}


def test_installed_plugins_and_built_ins_come_through_the_same_hooks(registry):
    assert {"resnet18", "resnet20", "resnet34", "resnet50", "resnet101", "resnet152"} <= names(registry)
    assert [backend.name for backend in registry.backends()] == ["onnxruntime", "openvino"]
    assert [dataset.name for dataset in registry.datasets()] == ["digits", "photos"]
    assert registry.problems == ()


def test_an_installed_models_provenance_names_its_distribution(registry):
    found = registry.model("resnet20").provenance
    assert (found.plugin, found.module, found.distribution) == ("resnet", "qzoo_resnet", "qzoo")
    assert Path(found.origin).name == "__init__.py"


def test_a_single_file_is_a_plugin(folder):
    write(folder / "single_one.py", MODEL.format(name="single"))
    entry = load(folder).model("single")
    assert entry.provenance.plugin == "single_one"
    assert entry.provenance.origin == str(folder / "single_one.py")
    assert entry.provenance.distribution is None


def test_a_package_is_a_plugin_by_itself_and_among_others(folder):
    write(folder / "packaged_one" / "__init__.py", MODEL.format(name="packaged"))
    write(folder / "single_two.py", MODEL.format(name="beside"))
    assert "packaged" in names(load(folder / "packaged_one"))
    assert {"packaged", "beside"} <= names(load(folder))


@pytest.mark.parametrize("layout", ["flat", "src"])
def test_a_project_is_read_from_its_entry_points(folder, layout):
    package = f"project_{layout}"
    write(folder / "pyproject.toml", f'[project]\nname = "p"\n[project.entry-points.qzoo]\nmine = "{package}"\n')
    root = folder / "src" if layout == "src" else folder
    write(root / package / "__init__.py", MODEL.format(name=f"from-{layout}"))
    assert load(folder).model(f"from-{layout}").provenance.plugin == "mine"


def test_the_environment_names_folders_as_path_does(folder, tmp_path):
    write(folder / "env_one.py", MODEL.format(name="env1"))
    write(tmp_path / "more" / "env_two.py", MODEL.format(name="env2"))
    assert {"env1", "env2"} <= names(load(env={"QZOO_PLUGINS": f"{folder}:{tmp_path / 'more'}"}))


def test_an_installed_entry_point_is_found_in_a_fresh_process(tmp_path):
    write(tmp_path / "dist_one.py", MODEL.format(name="distributed"))
    write(tmp_path / "dist_one-2.5.dist-info" / "METADATA", "Metadata-Version: 2.1\nName: dist-one\nVersion: 2.5\n")
    write(tmp_path / "dist_one-2.5.dist-info" / "entry_points.txt", "[qzoo]\nmine = dist_one\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from qzoo.registry import Registry\n"
        "found = Registry.load(env={}).model('distributed').provenance\n"
        "print(found.plugin, found.distribution, found.version)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["mine", "dist-one", "2.5"]


@pytest.mark.parametrize(("make", "words"), [(False, "no such folder"), (True, "no plugin in it")])
def test_a_folder_without_plugins_is_a_usage_error(tmp_path, make, words):
    if make:
        (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=words) as raised:
        load(tmp_path / "empty")
    assert raised.value.exit_code == 2


def test_a_pyproject_that_is_no_toml_is_a_usage_error(folder):
    write(folder / "pyproject.toml", "[project\n")
    with pytest.raises(UsageError, match=r"pyproject\.toml can't be read"):
        load(folder)


def test_two_plugins_with_one_model_are_both_named(folder):
    write(folder / "twin_a.py", MODEL.format(name="twin"))
    write(folder / "twin_b.py", MODEL.format(name="twin"))
    with pytest.raises(
        DuplicateName, match=r"'twin' is provided twice: by plugin twin_a .*and by plugin twin_b"
    ) as raised:
        load(folder)
    assert raised.value.exit_code == 8


def test_a_dataset_called_as_a_built_in_one_is_a_duplicate(folder):
    write(
        folder / "data_twin.py",
        "import qzoo\n@qzoo.hookimpl\ndef qzoo_datasets():\n    yield qzoo.DatasetSource('digits', 's', lambda: None)\n",
    )
    with pytest.raises(DuplicateName, match="dataset 'digits'"):
        load(folder)


def test_a_backend_called_as_a_built_in_one_is_a_duplicate(folder):
    write(
        folder / "backend_twin.py",
        "import qzoo\nfrom qzoo.backends.ort import OnnxRuntime\n"
        "@qzoo.hookimpl\ndef qzoo_backends():\n    yield OnnxRuntime()\n",
    )
    with pytest.raises(DuplicateName, match="backend 'onnxruntime'"):
        load(folder)


def test_the_same_folder_given_twice_is_no_duplicate(folder):
    write(folder / "once_only.py", MODEL.format(name="once"))
    assert "once" in names(load(folder, folder))


def test_a_misspelt_hook_names_the_nearest(folder):
    write(folder / "misspelt.py", MODEL.format(name="x").replace("def qzoo_models", "def qzoo_model"))
    with pytest.raises(
        UnknownHook, match=r"implements qzoo_model, which is no hook; did you mean qzoo_models\?"
    ) as raised:
        load(folder)
    assert raised.value.exit_code == 8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("import nosuchmodule", "No module named 'nosuchmodule'"),
        ("def broken(:", "SyntaxError"),
        ("import qzoo\n@qzoo.hookimpl\ndef qzoo_models():\n    yield 1 / 0", "ZeroDivisionError"),
        ("import qzoo\n@qzoo.hookimpl\ndef qzoo_models():\n    yield 'resnet'", "gave a str where a ModelSpec"),
        ("import qzoo\n@qzoo.hookimpl\ndef qzoo_models(extra):\n    yield 1", "extra"),
    ],
    ids=["raises", "imports", "syntax", "hook raises", "wrong kind", "wrong arguments"],
)
def test_a_broken_plugin_is_named_and_takes_no_other_down(folder, text, words, request):
    name = f"broken_{abs(hash(request.node.name))}"
    write(folder / f"{name}.py", text + "\n")
    write(folder / f"{name}_z.py", MODEL.format(name="healthy"))
    found = load(folder)
    assert "healthy" in names(found)
    (problem,) = found.problems
    assert problem.plugin == name
    assert words in problem.message


def test_an_unknown_model_says_which_plugins_are_missing(folder):
    write(folder / "broken_for_message.py", "raise RuntimeError('no luck')\n")
    with pytest.raises(UnknownName, match=r"plugin broken_for_message could not be loaded: RuntimeError: no luck"):
        load(folder).model("anything")


def test_a_plugin_called_as_another_module_is_named(folder):
    write(folder / "json.py", MODEL.format(name="shadowed"))
    (problem,) = load(folder).problems
    assert "rename it" in problem.message
    assert problem.message.startswith(BrokenPlugin.__name__)


def test_a_plugin_without_hooks_is_no_problem(folder):
    write(folder / "hookless.py", "VALUE = 1\n")
    assert load(folder).problems == ()


def test_an_unknown_model_names_the_nearest(registry):
    with pytest.raises(UnknownName, match="did you mean resnet50") as raised:
        registry.model("resnet5O")
    assert raised.value.exit_code == 2
    assert raised.value.near[0] == "resnet50"


FAMILY = (
    SPEC
    + """
calls = []

def resolve(name):
    calls.append(name)
    return {what}

@qzoo.hookimpl
def qzoo_models():
    yield qzoo.ModelFamily(prefix="fam", summary="a family", names=lambda: ["one", "two"], resolve=resolve)
"""
)


def test_a_family_resolves_only_the_model_that_is_asked_for(folder):
    write(folder / "family_one.py", FAMILY.format(what="spec('fam/' + name)"))
    found = load(folder)
    assert [entry.family.prefix for entry in found.families()] == ["fam"]
    assert not any(name.startswith("fam") for name in names(found))
    import family_one

    assert family_one.calls == []
    assert isinstance(found.model("fam/two").spec, ModelSpec)
    assert family_one.calls == ["two"]


def test_a_family_without_such_a_member_names_the_nearest(folder):
    write(folder / "family_two.py", FAMILY.format(what="spec('fam/' + name)"))
    with pytest.raises(UnknownName, match="did you mean fam/two"):
        load(folder).model("fam/twoo")


def test_a_family_that_resolves_to_something_else_is_a_spec_error(folder):
    write(folder / "family_three.py", FAMILY.format(what="name"))
    with pytest.raises(SpecError, match="gave a str where a ModelSpec"):
        load(folder).model("fam/one")


def test_targets_are_preferred_as_the_design_says(registry):
    assert [backend.name for backend in registry.preferred()] == ["openvino", "onnxruntime"]


def test_a_plugins_digest_changes_with_any_of_its_bytes_and_not_with_compiled_files(folder):
    package = folder / "digested"
    write(package / "__init__.py", MODEL.format(name="digested"))
    write(package / "data" / "table.txt", "1")
    origin = load(folder).model("digested").provenance
    before = source_digest(origin)
    write(package / "__pycache__" / "junk.pyc", "compiled")
    assert source_digest(origin) == before
    write(package / "data" / "table.txt", "2")
    assert source_digest(origin) != before


def test_the_digest_does_not_depend_on_where_the_plugin_lies(tmp_path):
    digests = []
    for place in ("here", "there"):
        write(tmp_path / place / f"moved_{place}" / "__init__.py", MODEL.format(name=place))
        (tmp_path / place / f"moved_{place}" / "__init__.py").write_text("VALUE = 1\n")
        from qzoo.records import Provenance

        origin = str(tmp_path / place / f"moved_{place}" / "__init__.py")
        digests.append(source_digest(Provenance(plugin="p", module="m", origin=origin)))
    assert digests[0] == digests[1]


def test_loading_imports_no_framework_and_no_runtime():
    code = (
        "import sys; from qzoo.registry import Registry; Registry.load(env={})\n"
        "heavy = ('torch', 'torchvision', 'timm', 'onnxruntime', 'openvino', 'numpy', 'sklearn')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
