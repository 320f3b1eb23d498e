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
    assert [backend.name for backend in registry.backends()] == ["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
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


def test_the_path_of_an_unlisted_plugin_is_in_its_provenance_wherever_it_came_from(folder, tmp_path):
    given = write(folder / "given_one.py", MODEL.format(name="given"))
    named = write(tmp_path / "more" / "named_one" / "__init__.py", MODEL.format(name="named"))
    found = load(folder, env={"QZOO_PLUGINS": str(tmp_path / "more")})
    for name, path in (("given", given), ("named", named)):
        provenance = found.model(name).provenance
        assert (provenance.origin, provenance.distribution, provenance.version) == (str(path), None, None)


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
        "import qzoo\n@qzoo.hookimpl\n"
        "def qzoo_datasets():\n    yield qzoo.DatasetSource('digits', 's', lambda: None)\n",
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


def test_two_families_with_one_prefix_are_both_named(folder):
    for name in ("clan_a", "clan_b"):
        write(folder / f"{name}.py", FAMILY.format(what="spec(name)"))
    with pytest.raises(DuplicateName, match=r"family 'fam' is provided twice: by plugin clan_a .*and by plugin clan_b"):
        load(folder)


def test_a_model_called_as_an_installed_one_names_both_origins(folder):
    path = write(folder / "model_twin.py", MODEL.format(name="resnet50"))
    with pytest.raises(DuplicateName, match=rf"resnet \(.*__init__\.py\) and by plugin model_twin \({path}\)"):
        load(folder)


def test_the_same_folder_given_twice_is_no_duplicate(folder):
    write(folder / "once_only.py", MODEL.format(name="once"))
    assert "once" in names(load(folder, folder))


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("qzoo_dataset", "qzoo_datasets"), ("qzoo_backend", "qzoo_backends"), ("models", "qzoo_models")],
)
def test_every_hook_is_the_nearest_to_its_misspelling(folder, wrong, near):
    write(folder / f"misspelt_{wrong}.py", f"import qzoo\n@qzoo.hookimpl\ndef {wrong}():\n    yield 1\n")
    with pytest.raises(UnknownHook, match=rf"implements {wrong}, which is no hook; did you mean {near}\?"):
        load(folder)


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
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import qzoo\n@qzoo.hookimpl\ndef qzoo_models():\n    return 1", "not iterable"),
        ("import qzoo\n@qzoo.hookimpl\ndef qzoo_datasets():\n    yield None", "gave a NoneType where a DatasetSource"),
        ("import qzoo\n@qzoo.hookimpl\ndef qzoo_backends():\n    yield object()", "gave a object where a Backend"),
    ],
    ids=[
        "raises",
        "imports",
        "syntax",
        "hook_raises",
        "wrong_kind",
        "wrong_arguments",
        "exits",
        "not_iterable",
        "none",
        "no_backend",
    ],
)
def test_a_broken_plugin_is_named_and_takes_no_other_down(folder, text, words, request):
    name = f"broken_{request.node.callspec.id}"
    write(folder / f"{name}.py", text + "\n")
    write(folder / f"{name}_z.py", MODEL.format(name="healthy"))
    found = load(folder)
    assert "healthy" in names(found)
    (problem,) = found.problems
    assert problem.plugin == name
    assert words in problem.message
    assert problem.origin == str(folder / name)


def test_an_unknown_model_says_which_plugins_are_missing(folder):
    write(folder / "broken_for_message.py", "raise RuntimeError('no luck')\n")
    with pytest.raises(UnknownName, match=r"plugin broken_for_message could not be loaded: RuntimeError: no luck"):
        load(folder).model("anything")


def test_a_plugin_called_as_another_module_is_named(folder):
    write(folder / "json.py", MODEL.format(name="shadowed"))
    (problem,) = load(folder).problems
    assert "rename it" in problem.message
    assert problem.message.startswith(BrokenPlugin.__name__)


def test_a_plugin_that_yields_nothing_is_no_problem(folder):
    write(folder / "yields_nothing.py", "import qzoo\n@qzoo.hookimpl\ndef qzoo_models():\n    yield from ()\n")
    found = load(folder)
    assert found.problems == ()
    assert names(found) == names(load())


def test_a_plugin_that_breaks_half_way_gives_nothing(folder):
    write(folder / "half_way.py", SPEC + "@qzoo.hookimpl\ndef qzoo_models():\n    yield spec('half')\n    1 / 0\n")
    found = load(folder)
    assert "half" not in names(found)
    assert [problem.plugin for problem in found.problems] == ["half_way"]


def test_a_spec_that_breaks_a_rule_leaves_its_plugin_out(folder):
    write(folder / "bad_spec.py", MODEL.format(name="Upper Case"))
    (problem,) = load(folder).problems
    assert problem.message.startswith("SpecError: model name 'Upper Case'")


def test_an_interruption_while_a_plugin_loads_is_not_swallowed(folder):
    write(folder / "interrupted.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load(folder)


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

def names():
    calls.append("names")
    return ["one", "two"]

def resolve(name):
    calls.append(name)
    return {what}

@qzoo.hookimpl
def qzoo_models():
    yield qzoo.ModelFamily(prefix="fam", summary="a family", names=names, resolve=resolve)
"""
)


def test_a_family_resolves_only_the_model_that_is_asked_for(folder):
    write(folder / "family_one.py", FAMILY.format(what="spec('fam/' + name)"))
    found = load(folder)
    assert [entry.family.prefix for entry in found.families()] == ["fam", "timm"]
    assert not any(name.startswith("fam") for name in names(found))
    import family_one

    assert family_one.calls == []
    assert isinstance(found.model("fam/two").spec, ModelSpec)
    assert family_one.calls == ["names", "two"]


def test_a_family_without_such_a_member_names_the_nearest(folder):
    write(folder / "family_two.py", FAMILY.format(what="spec('fam/' + name)"))
    with pytest.raises(UnknownName, match="did you mean fam/two") as raised:
        load(folder).model("fam/twoo")
    assert raised.value.exit_code == 2
    import family_two

    assert family_two.calls == ["names"]


def test_a_family_that_resolves_to_something_else_is_a_spec_error(folder):
    write(folder / "family_three.py", FAMILY.format(what="name"))
    with pytest.raises(SpecError, match="gave a str where a ModelSpec"):
        load(folder).model("fam/one")


def test_targets_are_preferred_as_the_design_says(registry):
    assert [backend.name for backend in registry.preferred()] == [
        "tensorrt",
        "tensorrt-rtx",
        "openvino",
        "onnxruntime",
    ]


BACKENDS = """
import qzoo
from qzoo.backends.ort import OnnxRuntime

@qzoo.hookimpl
def qzoo_backends():
    for name in ("zeta", "alpha"):
        yield type(name, (OnnxRuntime,), {"name": name})()
"""


def test_a_plugins_targets_come_where_the_design_puts_them_and_then_by_name(folder):
    write(folder / "more_targets.py", BACKENDS)
    assert [backend.name for backend in load(folder).preferred()] == [
        "tensorrt",
        "tensorrt-rtx",
        "openvino",
        "onnxruntime",
        "alpha",
        "zeta",
    ]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda registry: registry.backend("openvin"), "unknown target 'openvin'; did you mean openvino"),
        (lambda registry: registry.dataset("digit"), "unknown dataset 'digit'; did you mean digits"),
        (lambda registry: registry.backend("zzz"), "known: auto, onnxruntime, openvino"),
        (lambda registry: registry.dataset("zzz"), "known: digits, photos; or give a directory"),
    ],
)
def test_an_unknown_name_lists_what_there_is(registry, ask, words):
    with pytest.raises(UnknownName, match=words) as raised:
        ask(registry)
    assert raised.value.exit_code == 2


def test_without_the_built_ins_there_is_neither_backend_nor_dataset():
    found = Registry.load(env={}, builtins={})
    assert (found.backends(), found.datasets()) == ((), ())
    assert "resnet50" in names(found)


def test_a_single_files_digest_is_of_that_file_alone(folder):
    path = write(folder / "digested_file.py", MODEL.format(name="digested-file"))
    origin = load(folder).model("digested-file").provenance
    before = source_digest(origin)
    write(folder / "beside.py", "VALUE = 1\n")
    assert source_digest(origin) == before
    path.write_text(path.read_text() + "\n")
    assert source_digest(origin) != before


def test_a_renamed_file_changes_a_plugins_digest(folder):
    package = folder / "renamed"
    write(package / "__init__.py", MODEL.format(name="renamed"))
    table = write(package / "table.txt", "1")
    origin = load(folder).model("renamed").provenance
    before = source_digest(origin)
    table.rename(package / "other.txt")
    assert source_digest(origin) != before


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
        from qzoo.provenance import Provenance

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
