"""A new plugin that begins from a library's network states what the library does, and passes its checks."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision

from qzoo.errors import UnknownName, UsageError
from qzoo.spec import ModelSpec
from qzoo.testing import check_model, subjects_in
from qzoo.testing.libraries import described
from qzoo.testing.scaffold import scaffold


def only_subject(name, tmp_path, cache, origin):
    (subject,) = subjects_in(scaffold(name, tmp_path, origin), cache)
    return subject


@pytest.mark.parametrize(
    ("name", "origin"), [("from-torchvision", "torchvision:squeezenet1_1"), ("from-timm", "timm:test_resnet")]
)
def test_it_passes_every_check_and_none_is_left_out(tmp_path, cache, name, origin):
    report = check_model(only_subject(name, tmp_path, cache, origin))
    assert {one.check: one.status for one in report.findings if one.status != "passed"} == {}


def test_its_spec_has_torchvisions_own_input_weights_and_head(tmp_path, cache):
    spec: ModelSpec = only_subject("vision-spec", tmp_path, cache, "torchvision:efficientnet_v2_l").spec
    weights = torchvision.models.EfficientNet_V2_L_Weights.DEFAULT
    preset = weights.transforms()
    how = spec.input.preprocess
    assert (how.resize, how.crop) == (preset.resize_size[0], preset.crop_size[0])
    assert (how.mean, how.std) == (tuple(preset.mean), tuple(preset.std))
    assert how.interpolation == preset.interpolation.value
    assert spec.input.shape == (3, 480, 480)
    (source,) = spec.weights
    assert torchvision.models.get_weight(source.ref) is weights
    assert f"-{source.sha256}." in weights.url
    assert (spec.head, spec.placement, spec.num_classes) == ("classifier.1", "derived", 1000)
    assert spec.reference == "torchvision.models:efficientnet_v2_l"


def test_its_spec_has_timms_own_input_weights_and_head(tmp_path, cache):
    spec: ModelSpec = only_subject("timm-spec", tmp_path, cache, "timm:vit_tiny_patch16_224").spec
    config = timm.get_pretrained_cfg("vit_tiny_patch16_224")
    how = spec.input.preprocess
    assert (spec.input.shape, how.crop, how.interpolation) == (config.input_size, 224, config.interpolation)
    assert (how.mean, how.std, spec.head) == (config.mean, config.std, config.classifier)
    assert [source.kind for source in spec.weights] == ["timm"]


@pytest.mark.parametrize("origin", ["torchvision:googlenet", "torchvision:inception_v3"])
def test_a_network_with_auxiliary_heads_gives_logits_alone_in_training_and_keeps_their_weights(tmp_path, cache, origin):
    from qzoo.quant.insert import resolve

    name = f"aux-{origin.partition(':')[2].replace('_', '-')}"
    spec = only_subject(name, tmp_path, cache, origin).spec
    with torch.random.fork_rng():
        network = resolve(spec.builder)(7).train()
        image = torch.randn(2, *spec.input.shape)
        assert network(image).shape == (2, 7)
    assert network.transform_input  # as the pretrained weights want it
    make = torchvision.models.get_model_builder(origin.partition(":")[2])
    with torch.device("meta"):
        assert network.state_dict().keys() == make(init_weights=False, num_classes=7).state_dict().keys()


def test_of_a_transformer_the_weights_are_those_of_the_size_it_is_built_for():
    found = described("torchvision:vit_h_14")  # its default weights are for 518x518
    assert (found.shape, found.weights.ref) == ((3, 224, 224), "ViT_H_14_Weights.IMAGENET1K_SWAG_LINEAR_V1")


def test_a_network_that_cannot_be_built_without_data_is_described_all_the_same():
    found = described("torchvision:regnet_x_400mf")
    assert (found.head, found.weights.ref) == ("fc", "RegNet_X_400MF_Weights.IMAGENET1K_V2")


@pytest.mark.parametrize(
    ("origin", "near"), [("torchvision:densnet121", "densenet121"), ("timm:regnety_02", "timm/regnety_002")]
)
def test_a_misspelt_network_is_an_unknown_name_with_those_that_are_near(tmp_path, origin, near):
    with pytest.raises(UnknownName, match="did you mean") as raised:
        scaffold("a-misspelt-origin", tmp_path, origin)
    assert near in raised.value.near
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("origin", ["keras:resnet50", "torchvision", "", "blank:resnet18", "densenet121"])
def test_another_library_is_a_usage_error_that_names_those_there_are(tmp_path, origin):
    with pytest.raises(UsageError, match="write torchvision:NAME, timm:NAME or blank"):
        scaffold("elsewhere", tmp_path, origin)
    assert list(tmp_path.iterdir()) == []


def test_describing_a_network_leaves_torchs_random_state(tmp_path):
    before = torch.get_rng_state()
    described("timm:regnety_002")
    described("torchvision:resnet18")
    assert torch.equal(before, torch.get_rng_state())
