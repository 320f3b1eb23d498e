"""What a plugin may declare."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qzoo.errors import SpecError, UnknownName, UsageError
from qzoo.spec import (
    BatchProfile,
    Fusion,
    InputSpec,
    ModelSpec,
    Preprocess,
    QuantSwap,
    Recipe,
    fill,
    match_path,
    matches_any,
    parse_calibrator,
    with_overrides,
)

PATHS = [
    "conv1",
    "bn1",
    "relu",
    *(f"layer{i}.{j}.{name}" for i in (1, 2) for j in (0, 1, 10) for name in ("conv1", "bn1", "relu1")),
    "layer1.0.downsample.0",
    "layer1.0.downsample.1",
]
PREPROCESS = Preprocess(resize=8, crop=8, mean=(0.0,) * 3, std=(1.0,) * 3)


def spec(**changes: object) -> ModelSpec:
    fields = {"name": "net", "summary": "s", "builder": "a:b", "version": "1", "num_classes": 2, "head": "fc"}
    return ModelSpec(**{**fields, "input": InputSpec(shape=(3, 8, 8), preprocess=PREPROCESS), **changes})


def test_a_pattern_binds_the_same_text_in_every_path():
    found = Fusion("layer*.*.conv1", "layer*.*.bn1", "layer*.*.relu1").bind(PATHS)
    assert len(found) == 6
    assert ("layer2.10.conv1", "layer2.10.bn1", "layer2.10.relu1") in found
    assert all({p.rpartition(".")[0] for p in group} == {group[0].rpartition(".")[0]} for group in found)


def test_a_star_does_not_cross_a_dot_in_a_fusion_but_does_in_keep_float():
    assert match_path("layer*", "layer1.0") is None
    assert matches_any("layer1.0", ["layer*"])


def test_a_pattern_without_stars_is_one_path():
    assert Fusion("conv1", "bn1").bind(PATHS) == [("conv1", "bn1", None)]


@pytest.mark.parametrize(
    ("fusion", "words"),
    [
        (Fusion("conv9", "bn9"), "'conv9' matches no module"),
        (Fusion("layer*.*.conv1", "layer*.*.bn7"), "no module layer1.0.bn7"),
        (Fusion("layer*.*.conv1", "layer*.*.bn1", "layer*.*.gelu"), "no module layer1.0.gelu"),
        (Fusion("conv1", "bn*"), "more '\\*' than"),
    ],
)
def test_a_fusion_that_does_not_fit_says_which_path(fusion, words):
    with pytest.raises(SpecError, match=words) as raised:
        fusion.bind(PATHS)
    assert raised.value.exit_code == 8


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.from_regex(r"[a-z0-9_]{1,6}", fullmatch=True), min_size=1, max_size=3))
def test_what_was_matched_is_filled_in_again(texts):
    pattern = ".".join("*" for _ in texts)
    assert fill(pattern, match_path(pattern, ".".join(texts))) == ".".join(texts)


@pytest.mark.parametrize("path", ["a.b", "a-b", "a[b", "a(b"])
def test_characters_of_a_path_mean_themselves(path):
    assert match_path(path, path)
    assert match_path(path, path.replace(path[1], "x")) is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mean": (0.0,)}, "needs 3 means"),
        ({"std": (1.0, 0.0, 1.0)}, "every std must be > 0"),
        ({"crop": 9}, "0 < crop <= resize"),
        ({"crop": 0}, "0 < crop <= resize"),
        ({"mode": "L"}, "needs 1 means"),
    ],
)
def test_preprocessing_that_makes_no_sense_is_refused(fields, words):
    with pytest.raises(SpecError, match=words):
        Preprocess(**{"resize": 8, "crop": 8, "mean": (0.0,) * 3, "std": (1.0,) * 3, **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "ResNet"}, "lowercase"),
        ({"builder": "module.function"}, "not of the form"),
        ({"recipes": (Recipe(target="openvino", precision="int8"),) * 2}, "two recipes for the same target"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(fields, words):
    with pytest.raises(SpecError, match=words):
        spec(**fields)


@pytest.mark.parametrize("both", [{}, {"path": "add", "type": "torch.nn.Conv2d"}])
def test_a_swap_names_a_path_or_a_type(both):
    with pytest.raises(SpecError, match="exactly one of path and type"):
        QuantSwap("a:b", **both)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (2, 1, 4), (1, 5, 4)])
def test_a_batch_profile_is_in_order(sizes):
    low, opt, high = sizes
    with pytest.raises(UsageError, match=f"{low}:{opt}:{high}"):
        BatchProfile(min=low, opt=opt, max=high)


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"precision": "int4"}, "int4"), ({"placement": "best"}, "best"), ({"roles": ("input", "bias")}, "bias")],
)
def test_a_recipe_of_unknown_words_is_refused(fields, words):
    with pytest.raises(UsageError, match=words):
        Recipe(**{"target": "openvino", "precision": "int8", **fields})


def test_a_declared_recipe_comes_before_the_targets_own():
    declared = Recipe(target="openvino", precision="int8", roles=("input", "weight"), calibrator="max")
    model = spec(recipes=(declared,))
    assert model.recipe("openvino", "int8", ("input", "weight", "skip")) == declared
    assert model.recipe("onnxruntime", "int8", ("input", "weight", "skip")).roles == ("input", "weight", "skip")


def test_overrides_leave_what_is_none():
    recipe = Recipe(target="openvino", precision="int8")
    assert with_overrides(recipe, calibrator=None, placement="auto").placement == "auto"
    assert with_overrides(recipe, calibrator=None) == recipe


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.floats(0.001, 100))
def test_a_percentile_is_read_back(value):
    assert parse_calibrator(f"percentile:{value!r}") == ("percentile", value)


def test_calibrators_by_name():
    assert parse_calibrator("max") == ("max", None)
    assert parse_calibrator("percentile") == ("percentile", 99.99)
    with pytest.raises(UnknownName, match="did you mean max"):
        parse_calibrator("mux")
