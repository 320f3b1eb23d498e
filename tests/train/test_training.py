"""`train`: what is learned, kept, resumed and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from qzoo.errors import DataUnavailable, SpecError, TrainingDiverged, UsageError, WeightsMismatch
from qzoo.pipeline import Options, build_all, make_plan
from qzoo.pipeline.network import make_network
from qzoo.pipeline.progress import Silent
from qzoo.pipeline.training import TrainOptions, train
from qzoo.quant.insert import insert_quantizers
from qzoo.quant.modules import quantizers
from qzoo.spec import Recipe
from qzoo.store import Store


class Interrupting(Silent):
    """Ctrl-C at the second step of an epoch."""

    def __init__(self, epoch: int) -> None:
        self._epoch, self._steps = epoch, 0

    def stage(self, name: str, total: int | None = None) -> None:
        self._steps = -(10**9) if not name.startswith(f"epoch {self._epoch}/") else 0

    def advance(self, steps: int = 1) -> None:
        self._steps += steps
        if self._steps == 2:
            raise KeyboardInterrupt


def test_float_training_learns_the_digits(float_run):
    assert [record.epoch for record in float_run.history] == [1, 2, 3]
    assert float_run.history[-1].loss < float_run.history[0].loss / 2
    assert float_run.held_out.total == 360
    assert float_run.held_out.fraction > 0.9


def test_a_tenth_of_each_class_validates_and_the_rest_is_trained_on(float_run):
    assert (float_run.images, float_run.validation_images) == (1293, 144)
    assert float_run.history[0].training.total == 1293 // 64 * 64


def test_the_kept_weights_are_those_of_the_best_validated_epoch(trained):
    run = trained(lr=0.5)  # too much, so that accuracy goes up and down
    validated = [record.validation.correct for record in run.history]
    assert validated[run.best_epoch - 1] == max(validated)
    kept = json.loads((Path(run.weights).parent / "history.json").read_text())
    assert [record["validation"]["correct"] for record in kept] == validated


def test_without_validation_the_last_epoch_is_kept(trained):
    run = trained(validation=0.0, epochs=2)
    assert (run.images, run.validation_images, run.best_epoch) == (1437, 0, 2)


def test_the_curve_is_a_picture(float_run):
    with Image.open(float_run.curve) as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture).std() > 0


@pytest.mark.parametrize("options", [{}, {"qat": True, "learn_amax": True}], ids=["float", "learned ranges"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(trained, float_run, tmp_path, options):
    if options:
        options = {**options, "weights": float_run.weights, "epochs": 3}
    whole = trained(**options)
    with pytest.raises(KeyboardInterrupt):
        trained(progress=Interrupting(3), out=tmp_path / "cut", **options)
    assert len(json.loads((tmp_path / "cut/history.json").read_text())) == 2
    resumed = trained(resume=tmp_path / "cut")
    theirs, ours = load_file(whole.weights), load_file(resumed.weights)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert resumed.held_out == whole.held_out


def test_the_same_seed_gives_the_same_file_and_another_another(trained):
    first, second, other = (trained(epochs=1, seed=seed) for seed in (3, 3, 4))
    assert Path(first.weights).read_bytes() == Path(second.weights).read_bytes()
    assert Path(first.weights).read_bytes() != Path(other.weights).read_bytes()


def test_a_resumed_run_keeps_its_settings(trained, float_run):
    with pytest.raises(UsageError, match=r"--lr 0\.5: the run that is resumed has 0\.01"):
        trained(resume=Path(float_run.checkpoint), lr=0.5)


def test_another_models_checkpoint_is_refused(trained, float_run):
    with pytest.raises(WeightsMismatch, match="is a checkpoint of tiny, not of twin"):
        trained("twin", resume=Path(float_run.checkpoint))


def test_weights_are_no_checkpoint(trained, float_run):
    with pytest.raises(WeightsMismatch, match=r"best\.safetensors is no checkpoint of `qzoo train`"):
        trained(resume=Path(float_run.weights))


def test_a_damaged_checkpoint_is_refused(trained, float_run, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(Path(float_run.checkpoint).read_bytes()[:-100])
    with pytest.raises(WeightsMismatch, match="can't be read as a safetensors file"):
        trained(resume=tmp_path)


def test_a_run_is_not_overwritten(trained, float_run):
    with pytest.raises(UsageError, match=r"holds a run; go on with --resume"):
        trained(out=Path(float_run.weights).parent)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(trained, tmp_path):
    with pytest.raises(
        TrainingDiverged, match=r"the loss is (nan|inf) at step \d+ of epoch 2; the checkpoint of epoch 1"
    ):
        trained(out=tmp_path / "run", lr=1.0, progress=Poisoning())
    state = load_file(tmp_path / "run/best.safetensors")
    assert all(bool(value.isfinite().all()) for value in state.values())
    assert len(json.loads((tmp_path / "run/history.json").read_text())) == 1


class Poisoning(Silent):
    """Makes the network's weights infinite in the second epoch, as a rate that is far too high would."""

    def stage(self, name: str, total: int | None = None) -> None:
        if name.startswith("epoch 2/"):
            import gc

            for thing in gc.get_objects():
                if type(thing).__name__ == "Tiny":
                    thing.head.weight.data.fill_(float("inf"))


def test_without_quantizers_there_is_no_range_to_learn(trained):
    with pytest.raises(UsageError, match="--learn-amax trains quantizers' ranges, which only --qat has"):
        trained(learn_amax=True)


def test_a_network_without_quantizers_has_nothing_to_train_with(trained, float_run):
    with pytest.raises(SpecError, match="bare: no module was quantized"):
        trained("bare", qat=True, weights=float_run.weights)


def test_a_batch_larger_than_the_data_is_refused(trained):
    with pytest.raises(DataUnavailable, match=r"has 1293 images to train on, fewer than one batch of 2000"):
        trained(batch_size=2000)


@pytest.fixture
def pictures(tmp_path):
    """Three classes of 1x1 pixels."""
    path = tmp_path / "pictures.npz"
    labels = np.arange(60) % 3
    np.savez(path, images=np.random.default_rng(0).integers(0, 255, (60, 1, 1), np.uint8), labels=labels)
    return path


def test_images_far_too_small_are_refused_and_both_sizes_are_named(trained, pictures):
    np.savez(
        pictures, images=np.zeros((60, 1, 1), np.uint8) + np.arange(60, dtype=np.uint8)[:, None, None], labels=[0] * 60
    )
    trained_on = {"data": str(pictures), "batch_size": 4}
    with pytest.raises(DataUnavailable, match=r"images of 1x1 pixels, resnet18 takes 224x224"):
        trained("resnet18", **trained_on)


def test_weights_of_other_classes_than_the_data_are_refused_and_both_counts_are_named(trained, float_run, pictures):
    with pytest.raises(DataUnavailable, match=r"has 3 classes, but .* has 10"):
        trained(data=str(pictures), weights=float_run.weights, batch_size=4)


def test_from_scratch_the_head_has_the_datas_classes(trained, pictures):
    run = trained(data=str(pictures), batch_size=4, epochs=1)
    assert load_file(run.weights)["head.weight"].shape == (3, 256)


def test_images_without_labels_are_refused(trained):
    with pytest.raises(DataUnavailable, match="'photos' has calibration images without a label"):
        trained(data="photos")


# --- with fake quantization


def test_qat_reports_the_float_and_the_calibrated_accuracy_it_started_from(qat_run, float_run):
    assert qat_run.float == float_run.held_out
    assert qat_run.calibrated.total == 360
    assert qat_run.held_out.correct >= qat_run.calibrated.correct - 3


def test_qat_starts_from_a_tenth_of_the_learning_rate_and_anneals_it_to_nothing(qat_run):
    assert qat_run.history[-1].lr == pytest.approx(0, abs=1e-9)
    assert 0 < qat_run.history[0].lr < 0.001


def test_ranges_are_frozen_unless_they_are_learned(trained, float_run):
    frozen, learned = (
        trained(qat=True, weights=float_run.weights, epochs=epochs, learn_amax=learn)
        for epochs, learn in ((2, None), (2, True))
    )
    ranges = [
        {name: value for name, value in load_file(run.weights).items() if name.endswith("_amax")}
        for run in (frozen, learned)
    ]
    assert ranges[0].keys() == ranges[1].keys()
    assert any(not torch.equal(ranges[0][name], ranges[1][name]) for name in ranges[0])
    again = load_file(trained(qat=True, weights=float_run.weights, epochs=1).weights)
    assert all(torch.equal(again[name], ranges[0][name]) for name in ranges[0])


def test_weights_trained_with_fake_quantization_build_into_the_network_that_was_trained(qat_run, tiny, home):
    plan = make_plan(Options(model="tiny", target="onnxruntime", weights=qat_run.weights), tiny, home.home / "cache")
    assert (plan.recipe.weight_bits, plan.recipe.calibrator) == (4, "trained")
    (bundle,) = build_all([plan], home)
    assert bundle.measurement.export_fidelity.sqnr_db >= 45
    assert bundle.measurement.accuracy["engine"].correct >= qat_run.held_out.correct - 2
    ranges = json.loads((bundle.path / "calibration.json").read_text())["ranges"]
    state = load_file(qat_run.weights)
    for path, found in ranges.items():
        np.testing.assert_allclose(found["amax"], state[f"{path}._amax"].reshape(-1).numpy(), rtol=1e-6)


def test_other_bits_than_the_weights_were_trained_for_are_refused(qat_run, tiny, home):
    options = Options(model="tiny", target="onnxruntime", weights=qat_run.weights, weight_bits=8)
    with pytest.raises(UsageError, match="--weight-bits 8: the weights were trained for 4"):
        make_plan(options, tiny, home.home / "cache")


def test_another_placement_than_the_weights_were_trained_for_is_refused(qat_run, tiny, home):
    options = Options(model="tiny", target="onnxruntime", weights=qat_run.weights, placement="auto")
    with pytest.raises(UsageError, match="--placement auto: the weights were trained for manual"):
        make_plan(options, tiny, home.home / "cache")


def test_trained_ranges_are_asked_for_where_there_are_none(float_run, tiny, home):
    options = Options(model="tiny", target="onnxruntime", weights=float_run.weights, calibrator="trained")
    plan = make_plan(options, tiny, home.home / "cache")
    with pytest.raises(WeightsMismatch, match="holds no ranges; train some with `qzoo train --qat`"):
        build_all([plan], home)


def test_a_range_that_is_missing_is_named(qat_run, tiny, home, tmp_path):
    state = load_file(qat_run.weights)
    del state["conv.input_quantizer._amax"]
    save_file(state, tmp_path / "less.safetensors")
    options = Options(model="tiny", target="onnxruntime", weights=str(tmp_path / "less.safetensors"))
    with pytest.raises(WeightsMismatch, match=r"no range for conv\.input_quantizer"):
        build_all([make_plan(options, tiny, home.home / "cache")], home)


def test_a_bundles_calibration_is_what_qat_starts_from(trained, registry, bundles, built_home):
    options = TrainOptions(
        model="resnet20", qat=True, weights=str(bundles["onnxruntime"].path), epochs=1, batch_size=1024
    )
    out = built_home.parent / "qat-from-bundle"
    run = train(replace(options, out=out), registry, Store(built_home), Silent())
    table = json.loads((bundles["onnxruntime"].path / "calibration.json").read_text())["ranges"]
    state = load_file(run.weights)
    for path, found in table.items():
        if found["role"] != "weight":
            assert float(state[f"{path}._amax"]) == pytest.approx(found["amax"][0], rel=1e-6)


def test_a_calibrator_beside_a_bundles_calibration_is_refused(registry, bundles, built_home, tmp_path):
    options = TrainOptions(
        model="resnet20", qat=True, weights=str(bundles["onnxruntime"].path), calibrator="max", out=tmp_path / "run"
    )
    with pytest.raises(UsageError, match="--calib max: ranges are taken from the bundle"):
        train(options, registry, Store(built_home), Silent())


def test_a_build_fine_tunes_before_it_exports(tiny, home, float_run):
    options = Options(model="tiny", target="onnxruntime", weights=float_run.weights, qat_epochs=1)
    (bundle,) = build_all([make_plan(options, tiny, home.home / "cache")], home)
    assert bundle.measurement.verified == "passed"
    assert "fine-tuning, epoch 1/1" in bundle.measurement.seconds
    assert bundle.manifest.inputs.recipe.qat.epochs == 1


def test_every_image_that_fine_tuning_reads_decides_the_bundles_id(tiny, home, float_run, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (400, 16, 16), np.uint8)
    ids: dict[int, set[str]] = {0: set(), 1: set()}
    for changed in (False, True):
        for epochs, found in ids.items():
            options = Options(
                model="tiny",
                target="onnxruntime",
                weights=float_run.weights,
                data=str(tmp_path / "images.npz"),
                calib_samples=8,
                qat_epochs=epochs,
            )
            np.savez(tmp_path / "images.npz", images=images, labels=np.arange(400) % 10)
            plan = make_plan(options, tiny, home.home / "cache")
            if changed:  # an image that neither calibrates nor is held out
                read = {sample.id for sample in (*plan.calibration, *plan.held_out)}
                spare = next(one for one in plan.dataset.samples("calibration") if one.id not in read)
                other = images.copy()
                other[int(spare.id.rpartition("/")[2])] ^= 1
                np.savez(tmp_path / "images.npz", images=other, labels=np.arange(400) % 10)
                changed_plan = make_plan(options, tiny, home.home / "cache")
                assert [one.id for one in changed_plan.held_out] == [one.id for one in plan.held_out]
                plan = changed_plan
            found.add(plan.inputs.bundle_id)
    assert (len(ids[0]), len(ids[1])) == (1, 2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"qat_epochs": 1, "precision": "fp32"}, "--qat-epochs needs an INT8 precision"),
        ({"qat_epochs": 1, "weights": "random"}, "--qat-epochs fine-tunes trained weights"),
        ({"qat_epochs": -1}, "--qat-epochs -1"),
    ],
)
def test_fine_tuning_that_makes_no_sense_is_refused(tiny, home, options, says):
    with pytest.raises(UsageError, match=says):
        make_plan(Options(model="tiny", target="onnxruntime", **options), tiny, home.home / "cache")


def test_a_fine_tuned_build_begins_from_the_best_calibrator_and_keeps_the_figures(tiny, home, float_run):
    options = Options(
        model="tiny", target="onnxruntime", weights=float_run.weights, qat_epochs=1, calibrator="auto", calib_samples=16
    )
    (bundle,) = build_all([make_plan(options, tiny, home.home / "cache")], home)
    trials = bundle.measurement.calibrators
    assert [trial.fidelity.sqnr_db for trial in trials if trial.chosen] == [max(t.fidelity.sqnr_db for t in trials)]
    assert json.loads((bundle.path / "calibration.json").read_text())["calibrator"] == "trained"


def test_fine_tuning_begins_from_the_ranges_of_the_best_calibrator(trained, tiny, home, float_run):
    run = trained(qat=True, weights=float_run.weights, epochs=1, calibrator="auto", calib_samples=16)
    options = Options(
        model="tiny", target="onnxruntime", weights=float_run.weights, calibrator="auto", calib_samples=16
    )
    (bundle,) = build_all([make_plan(options, tiny, home.home / "cache")], home)
    ranges = json.loads((bundle.path / "calibration.json").read_text())["ranges"]
    state = load_file(run.weights)
    for path, found in ranges.items():
        if path == "stem.input_quantizer":  # the others see a BatchNorm that training doesn't fold
            assert float(state[f"{path}._amax"]) == pytest.approx(found["amax"][0], rel=1e-6)


def test_a_report_on_all_calibrators_is_no_way_to_train(trained, float_run):
    with pytest.raises(UsageError, match="--calib all reports on the calibrators of one build"):
        trained(qat=True, weights=float_run.weights, calibrator="all")


@pytest.mark.parametrize(("calibrator", "becomes"), [(None, "trained"), ("auto", "auto")])
def test_trained_ranges_are_taken_unless_they_are_to_be_calibrated_anew(qat_run, tiny, home, calibrator, becomes):
    options = Options(model="tiny", target="onnxruntime", weights=qat_run.weights, calibrator=calibrator)
    assert make_plan(options, tiny, home.home / "cache").recipe.calibrator == becomes


def test_there_is_no_report_on_calibrators_where_the_weights_bring_their_ranges(qat_run, tiny, home):
    options = Options(model="tiny", target="onnxruntime", weights=qat_run.weights, calibrator="all")
    with pytest.raises(UsageError, match=r"--calib all: the weights bring ranges of their own.*--calib auto"):
        make_plan(options, tiny, home.home / "cache")


def test_a_trained_state_loads_into_a_network_that_was_never_calibrated(qat_run, tiny):
    spec = tiny.model("tiny").spec
    network = insert_quantizers(
        make_network(spec, 10), spec, Recipe(target="onnxruntime", precision="int8", weight_bits=4), trainable=True
    )
    network.load_state_dict(load_file(qat_run.weights))
    assert all(quantizer.calibrated for quantizer in quantizers(network).values())
