"""qzoo.load and qzoo.build, as a program calls them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import qzoo
from qzoo.data.digits import Digits
from qzoo.data.preprocess import apply
from qzoo.errors import EngineMismatch, IntegrityError, NoMatchError, UnknownName, UsageError
from qzoo.records import encode
from qzoo.store import Bundle, Store

RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture(autouse=True)
def home(built_home, monkeypatch) -> None:
    """QZOO_HOME: where the bundles were built, so that they and their copies may be loaded."""
    monkeypatch.setenv("QZOO_HOME", str(built_home))


@pytest.fixture(params=RUNTIMES)
def bundle(request, bundles) -> Bundle:
    return bundles[request.param]


@pytest.fixture(scope="module")
def images(bundles):
    """Eight held-out digits, preprocessed."""
    dataset = Digits()
    samples = dataset.samples("held-out")[:8]
    return np.stack([apply(bundles["openvino"].record.preprocess, dataset.image(sample)) for sample in samples])


@pytest.fixture
def digit(tmp_path) -> Path:
    dataset = Digits()
    dataset.image(dataset.samples("held-out")[0]).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def test_reference_directory_and_engine_file_open_the_same_engine(bundle, built_home, images):
    store, runtime = Store(built_home), bundle.record.target.runtime
    loaded = [
        qzoo.load("resnet20:int8", target=runtime, store=store),
        qzoo.load(bundle.path),
        qzoo.load(str(bundle.engine)),
    ]
    assert {engine.path for engine in loaded} == {bundle.engine}
    first, *others = [engine(images) for engine in loaded]
    assert all(np.array_equal(first, other) for other in others)


def test_its_outputs_are_those_of_the_lowered_graph_in_unoptimized_onnxruntime(bundle, images):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(bundle.path / "lowered.onnx", options)
    expected = session.run(None, {"input": images})[0]
    found = qzoo.load(bundle.path)(images)
    assert (found.shape, found.dtype) == ((8, 10), np.float32)
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


def test_a_batch_gives_what_its_images_give_one_by_one(bundle, images):
    engine = qzoo.load(bundle.path)
    singles = np.concatenate([engine(image[None]) for image in images])
    np.testing.assert_allclose(engine(images), singles, atol=0.05 * np.abs(singles).max())
    np.testing.assert_array_equal(engine(images).argmax(1), singles.argmax(1))


def test_an_output_is_the_callers_own_and_later_calls_leave_it_alone(bundle, images):
    engine = qzoo.load(bundle.path)
    first = engine(images[:1])
    kept = first.copy()
    engine(images[1:2])
    np.testing.assert_array_equal(first, kept)


def test_an_array_of_another_layout_or_dtype_gives_the_same(bundle, images):
    engine = qzoo.load(bundle.path)
    expected = engine(images)
    channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(engine(channels_last), expected)
    np.testing.assert_array_equal(engine(images.astype(np.float64)), expected)


def test_one_thread_decides_as_many_do(bundle, images):
    np.testing.assert_array_equal(
        qzoo.load(bundle.path, threads=1)(images).argmax(1), qzoo.load(bundle.path)(images).argmax(1)
    )


@pytest.mark.parametrize("threads", [0, -2])
def test_no_threads_are_refused(bundles, threads):
    with pytest.raises(UsageError, match=f"threads must be at least 1, got {threads}"):
        qzoo.load(bundles["onnxruntime"].path, threads=threads)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((1, 3, 224, 224), r"input input has shape \(1, 3, 224, 224\); the engine takes \(N, 3, 32, 32\)"),
        ((3, 32, 32), r"input input has shape \(3, 32, 32\); the engine takes \(N, 3, 32, 32\)"),
        ((65, 3, 32, 32), "a batch of 65; the engine takes 1 to 64"),
        ((0, 3, 32, 32), "a batch of 0; the engine takes 1 to 64"),
    ],
)
def test_a_wrong_shape_or_batch_is_refused_and_named(bundle, shape, says):
    with pytest.raises(UsageError, match=says):
        qzoo.load(bundle.path)(np.zeros(shape, np.float32))


def test_an_input_of_another_name_is_refused_and_the_right_one_named(bundle, images):
    with pytest.raises(UsageError, match="inputs are input; got image"):
        qzoo.load(bundle.path).run({"image": images})


def test_classify_gives_the_softmax_of_the_raw_output_from_the_largest_down(bundle, digit):
    engine = qzoo.load(bundle.path)
    logits = engine(apply(engine.record.preprocess, Image.open(digit))[None])[0].astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum()
    guesses = engine.classify(digit, top=3)
    assert [guess.index for guess in guesses] == np.argsort(-chances)[:3].tolist()
    assert [guess.probability for guess in guesses] == pytest.approx(np.sort(chances)[:-4:-1], abs=1e-6)
    assert [guess.label for guess in guesses] == [str(guess.index) for guess in guesses]
    assert sum(guess.probability for guess in guesses) <= 1
    assert sum(guess.probability for guess in engine.classify(digit, top=10)) == pytest.approx(1)


def test_the_digest_is_checked_before_the_runtime_sees_the_file(bundle, tmp_path):
    mine = Bundle.open(shutil.copytree(bundle.path, tmp_path / "mine"))
    mine.engine.unlink()
    mine.engine.write_bytes(b"rubbish that a runtime would choke on")
    with pytest.raises(IntegrityError, match="was changed: expected sha256"):
        qzoo.load(mine.path)


def test_an_engine_for_another_instruction_set_is_not_loaded(bundle, tmp_path):
    from dataclasses import replace

    mine = Bundle.open(shutil.copytree(bundle.path, tmp_path / "mine"))
    record = replace(mine.record, target=replace(mine.record.target, isa="avx1024"))
    sidecar = mine.path / f"{mine.engine.name}.json"
    sidecar.unlink()
    sidecar.write_bytes(encode(record))
    with pytest.raises(EngineMismatch, match=r"built for .*/avx1024 with") as raised:
        qzoo.load(mine.path, allow_untrusted=True)
    assert str(bundle.record.target) in str(raised.value)


def test_a_target_that_a_reference_is_not_stored_for_lists_those_it_is(built_home, bundles):
    with pytest.raises(NoMatchError, match="resnet20:int8 for tensorrt is not in the store; there is resnet20:int8"):
        qzoo.load("resnet20:int8", target="tensorrt", store=Store(built_home))


def test_without_a_target_the_preferred_one_that_works_here_is_taken(built_home, bundles):
    assert qzoo.load("resnet20", store=Store(built_home)).path == bundles["openvino"].engine


def test_build_serves_the_same_bundle_from_the_store(built_home, bundle, monkeypatch):
    monkeypatch.setenv("QZOO_HOME", str(built_home))
    monkeypatch.delenv("QZOO_PLUGINS", raising=False)
    built = qzoo.build("resnet20", target=bundle.record.target.runtime)
    assert isinstance(built, qzoo.Bundle)
    assert (built.path, built.id, built.engine) == (bundle.path, bundle.id, bundle.engine)
    assert built.manifest == bundle.manifest
    assert built.record.model == "resnet20"
    assert built.measurement == bundle.measurement


def test_build_raises_what_the_command_line_prints(monkeypatch, tmp_path):
    monkeypatch.setenv("QZOO_HOME", str(tmp_path))
    with pytest.raises(UnknownName, match="did you mean resnet20"):
        qzoo.build("resnet21")
    with pytest.raises(UnknownName, match="unknown precision 'int4'"):
        qzoo.build("resnet20", precision="int4")
