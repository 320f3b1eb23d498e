from __future__ import annotations

import copy
import hashlib
import os
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from qzoo import weights
from qzoo.data.digits import Digits
from qzoo.data.preprocess import apply
from qzoo.errors import IntegrityError, SpecError, WeightsMismatch, WeightsUnavailable
from qzoo.records import file_digest
from qzoo.spec import InputSpec, ModelSpec, Preprocess, WeightSource
from qzoo.weights import sources
from qzoo_resnet.model import resnet20
from qzoo_resnet.spec import RESNET20


class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.drop(self.bn(self.conv(x))).mean((2, 3)))


def spec(*sources: WeightSource, head: str = "fc") -> ModelSpec:
    preprocess = Preprocess(mode="L", resize=8, crop=8, mean=(0.0,), std=(1.0,))
    return ModelSpec(
        name="net",
        summary="",
        builder="tests:Net",
        version="1",
        input=InputSpec(shape=(1, 8, 8), preprocess=preprocess),
        num_classes=3,
        head=head,
        weights=sources,
    )


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Net(classes=5).state_dict()


class Server:
    """A real HTTP server on this machine: serves `content` after `delay` seconds, and counts the requests."""

    def __init__(self) -> None:
        self.content, self.status, self.delay, self.requests = b"", 200, 0.0, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                time.sleep(outer.delay)
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                self.wfile.write(outer.content[: outer.cut])

            def log_message(self, *_: object) -> None:
                pass

        self.cut: int | None = None
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def source(self, name: str = "net.safetensors") -> WeightSource:
        digest = hashlib.sha256(self.content).hexdigest()
        return WeightSource(kind="url", ref=f"http://127.0.0.1:{self.http.server_port}/{name}", sha256=digest[:8])


@pytest.fixture
def server(state: dict[str, torch.Tensor], tmp_path: Path) -> Iterator[Server]:
    save_file(state, tmp_path / "served.safetensors")
    server = Server()
    server.content = (tmp_path / "served.safetensors").read_bytes()
    yield server
    server.http.shutdown()
    server.http.server_close()


# --- reading checkpoints


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_a_checkpoint_is_read_back(state: dict[str, torch.Tensor], tmp_path: Path, suffix: str):
    path = tmp_path / f"net{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert same(weights.load_state(path), state)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
def test_wrappers_and_prefixes_are_taken_off(state: dict[str, torch.Tensor], tmp_path: Path, wrapper: str, prefix: str):
    torch.save({wrapper: {prefix + key: value for key, value in state.items()}, "epoch": 3}, tmp_path / "net.pth")
    assert same(weights.load_state(tmp_path / "net.pth"), state)


def test_a_prefix_that_belongs_to_the_network_stays(state: dict[str, torch.Tensor], tmp_path: Path):
    own = {f"model.{key}": value for key, value in state.items()}
    save_file({f"module.{key}": value for key, value in own.items()}, tmp_path / "net.safetensors")
    assert weights.load_state(tmp_path / "net.safetensors", head="model.fc").keys() == own.keys()
    assert weights.plan(spec(head="model.fc"), str(tmp_path / "net.safetensors"), 0, tmp_path).record.num_classes == 5


def test_a_prefix_that_only_some_names_have_stays(state: dict[str, torch.Tensor], tmp_path: Path):
    state["model.extra"] = torch.zeros(1)
    save_file(state, tmp_path / "net.safetensors")
    assert same(weights.load_state(tmp_path / "net.safetensors"), state)


class Code:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.witness),))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path):
    torch.save({"fc.weight": Code(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(WeightsMismatch, match=r"evil\.pth was refused.*safetensors"):
        weights.load_state(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.95])
def test_a_truncated_checkpoint_is_named(state: dict[str, torch.Tensor], tmp_path: Path, suffix: str, keep: float):
    path = tmp_path / f"net{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(WeightsMismatch, match=f"net{suffix}"):
        weights.load_state(path)
    with pytest.raises(WeightsMismatch, match=f"net{suffix}"):
        weights.plan(spec(), str(path), 0, tmp_path / "cache")


@pytest.mark.parametrize("content", [torch.zeros(3), {"fc.weight": 3}, {}, [1, 2]])
def test_a_pickle_that_is_no_state_dict_is_named(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(WeightsMismatch, match=r"odd\.pth"):
        weights.load_state(tmp_path / "odd.pth")


def test_an_unknown_suffix_is_named(tmp_path: Path):
    (tmp_path / "net.onnx").write_bytes(b"x")
    with pytest.raises(WeightsMismatch, match=r"net\.onnx is not one of \.bin, \.pt, \.pth, \.safetensors"):
        weights.load_state(tmp_path / "net.onnx")


# --- into the network


def test_the_class_count_is_the_heads(state: dict[str, torch.Tensor]):
    assert weights.num_classes(state, "fc") == 5
    with pytest.raises(WeightsMismatch, match=r"no head\.weight"):
        weights.num_classes(state, "head")


def test_apply_loads_every_tensor(state: dict[str, torch.Tensor]):
    model = Net(classes=5)
    weights.apply(model, state, "net.pth")
    assert same(model.state_dict(), state)


def test_apply_names_shapes_that_differ(state: dict[str, torch.Tensor]):
    with pytest.raises(WeightsMismatch, match=r"net\.pth.*fc\.weight is \(5, 4\) instead of \(3, 4\)"):
        weights.apply(Net(classes=3), state, "net.pth")


def test_apply_names_missing_and_unknown_tensors(state: dict[str, torch.Tensor]):
    state["other.bias"] = state.pop("conv.bias")
    with pytest.raises(WeightsMismatch, match=r"lacks conv\.bias; it has an unknown other\.bias"):
        weights.apply(Net(classes=5), state, "net.pth")


# --- random weights


def test_random_weights_depend_on_the_seed_alone():
    batch = torch.randn(4, 1, 8, 8)
    torch.manual_seed(1)
    one = weights.initialize_random(Net, 7, batch)
    torch.manual_seed(2)
    two = weights.initialize_random(Net, 7, batch)
    assert same(one.state_dict(), two.state_dict())
    assert not same(one.state_dict(), weights.initialize_random(Net, 8, batch).state_dict())


def test_random_weights_leave_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    weights.initialize_random(Net, 0, torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.rand(3), expected)


def test_random_batchnorm_statistics_are_those_of_the_batch():
    batch = torch.randn(4, 1, 8, 8) * 3 + 2
    model = weights.initialize_random(Net, 0, batch)
    with torch.no_grad():
        activations = model.conv(batch)
    torch.testing.assert_close(model.bn.running_mean, activations.mean((0, 2, 3)))
    torch.testing.assert_close(model.bn.running_var, activations.var((0, 2, 3)))
    assert model.bn.momentum == nn.BatchNorm2d(1).momentum
    assert not any(module.training for module in model.modules())


def zeroed() -> Net:
    net = Net()
    nn.init.zeros_(net.fc.weight)
    nn.init.zeros_(net.bn.bias)
    return net


def test_a_layer_that_is_left_at_zero_is_drawn_and_the_others_stay():
    batch = torch.randn(4, 1, 8, 8)
    plain, drawn = weights.initialize_random(Net, 3, batch), weights.initialize_random(zeroed, 3, batch)
    assert drawn.fc.weight.count_nonzero() == drawn.fc.weight.numel()
    assert torch.equal(drawn.conv.weight, plain.conv.weight)
    assert not drawn.bn.bias.any()
    assert same(drawn.state_dict(), weights.initialize_random(zeroed, 3, batch).state_dict())


# --- where they come from


def test_random_is_recorded_by_its_seed(tmp_path: Path):
    plans = [weights.plan(spec(), "random", seed, tmp_path) for seed in (0, 0, 1)]
    assert plans[0] == plans[1]
    assert plans[0].path is None
    assert (plans[0].record.kind, plans[0].record.num_classes) == ("random", 3)
    assert plans[0].record.sha256 != plans[2].record.sha256


def test_a_path_is_recorded_by_content_not_by_place(state: dict[str, torch.Tensor], tmp_path: Path):
    plans = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        save_file(state, folder / "mine.safetensors")
        plans.append(weights.plan(spec(), str(folder / "mine.safetensors"), 0, tmp_path))
    assert plans[0].record == plans[1].record
    assert plans[0].record.sha256 == file_digest(tmp_path / "a/mine.safetensors")
    assert (plans[0].record.kind, plans[0].record.num_classes) == ("file", 5)


def test_a_missing_path_is_named(tmp_path: Path):
    with pytest.raises(WeightsUnavailable, match=r"nowhere\.pth.*--weights random"):
        weights.plan(spec(), str(tmp_path / "nowhere.pth"), 0, tmp_path)


def test_a_url_is_downloaded_once(server: Server, state: dict[str, torch.Tensor], tmp_path: Path):
    told: list[tuple[int, int | None]] = []
    source = server.source()
    first = weights.plan(spec(source), "auto", 0, tmp_path / "cache", lambda done, of: told.append((done, of)))
    second = weights.plan(spec(source), "auto", 0, tmp_path / "cache")
    assert first == second
    assert first.path
    assert same(weights.load_state(first.path), state)
    assert (first.record.kind, first.record.sha256) == ("hub", hashlib.sha256(server.content).hexdigest())
    assert server.requests == 1
    assert told[-1] == (len(server.content), len(server.content))


def test_a_download_of_other_bytes_is_refused_and_leaves_nothing(server: Server, tmp_path: Path):
    source = server.source()
    server.content = b"other"
    with pytest.raises(IntegrityError, match=source.sha256):
        weights.plan(spec(source), "auto", 0, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_download_that_breaks_off_is_reported_and_leaves_nothing(server: Server, tmp_path: Path):
    server.cut = 100
    with pytest.raises(WeightsUnavailable, match="broke off"):
        weights.plan(spec(server.source()), "auto", 0, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_changed_file_in_the_cache_is_refused(server: Server, tmp_path: Path):
    found = weights.plan(spec(server.source()), "auto", 0, tmp_path / "cache")
    assert found.path
    found.path.write_bytes(found.path.read_bytes()[:-1] + b"!")
    with pytest.raises(IntegrityError, match="delete it"):
        weights.plan(spec(server.source()), "auto", 0, tmp_path / "cache")


@pytest.mark.parametrize("why", ["404", "no-server", "silent"])
def test_an_unreachable_source_names_three_ways_out(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
):
    source = server.source()
    if why == "404":
        server.status = 404
    if why == "no-server":
        source = WeightSource(kind="url", ref="http://127.0.0.1:9/net.pth", sha256="0" * 8)
    if why == "silent":
        monkeypatch.setattr(sources, "REACH_SECONDS", 0.2)
        server.delay = 1.0
    with pytest.raises(WeightsUnavailable, match=r"--weights PATH.*--weights random.*connect.*retry"):
        weights.plan(spec(source), "auto", 0, tmp_path / "cache")


def test_giving_up_on_a_host_takes_well_under_15_seconds():
    assert sources.REACH_SECONDS < 15
    assert sources.CONNECT_SECONDS <= 5
    assert sources.READ_SECONDS <= 10


def test_a_file_at_hand_is_taken_before_anything_is_downloaded(server: Server, tmp_path: Path):
    (tmp_path / "net-00000000.pth").write_bytes(b"")
    missing = WeightSource(kind="url", ref="http://127.0.0.1:9/other.pth", sha256="1" * 8)
    weights.plan(spec(server.source()), "auto", 0, tmp_path)
    assert weights.plan(spec(missing, server.source()), "auto", 0, tmp_path).record.ref == server.source().ref


def test_a_url_without_a_digest_is_a_spec_error(tmp_path: Path):
    source = WeightSource(kind="url", ref="https://example.org/net.pth")
    with pytest.raises(SpecError, match="sha256"):
        weights.plan(spec(source), "auto", 0, tmp_path)


def test_a_torchvision_source_in_the_cache_is_found_by_its_digest(state: dict[str, torch.Tensor], tmp_path: Path):
    torch.save(state, tmp_path / "net.pth")
    digest = file_digest(tmp_path / "net.pth")
    (tmp_path / "net.pth").rename(tmp_path / f"net-{digest[:8]}.pth")
    source = WeightSource(kind="torchvision", ref="ResNet18_Weights.IMAGENET1K_V1", sha256=digest[:8])
    found = weights.plan(spec(source), "auto", 0, tmp_path)
    assert (found.record.sha256, found.record.num_classes) == (digest, 5)


def test_a_torchvision_sources_address_is_torchvisions():
    from torchvision.models import ResNet18_Weights

    source = WeightSource(kind="torchvision", ref="ResNet18_Weights.IMAGENET1K_V1")
    assert sources.address(source) == (ResNet18_Weights.IMAGENET1K_V1.url, "f37072fd")


def test_an_unknown_torchvision_source_is_a_spec_error():
    with pytest.raises(SpecError, match=r"ResNet18_Weights\.NONE"):
        sources.address(WeightSource(kind="torchvision", ref="ResNet18_Weights.NONE"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_planning_again_loads_no_torch(state: dict[str, torch.Tensor], tmp_path: Path, suffix: str):
    path = tmp_path / f"net{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    weights.plan(RESNET20, str(path), 0, tmp_path / "cache")
    code = (
        "import sys; from pathlib import Path; from qzoo import weights; from qzoo_resnet.spec import RESNET20;"
        f"p = weights.plan(RESNET20, {str(path)!r}, 0, Path({str(tmp_path / 'cache')!r}));"
        "assert p.record.num_classes == 5; weights.plan(RESNET20, 'random', 0, Path());"
        "weights.plan(RESNET20, 'auto', 0, Path()); assert not {'torch', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


# --- what is shipped


def test_every_shipped_checkpoint_is_listed_with_its_digest():
    folder = weights.shipped_dir()
    listed = tomllib.loads((folder / "weights.toml").read_text("utf-8"))
    assert {entry["file"] for entry in listed.values()} == {path.name for path in folder.glob("*.safetensors")}
    for entry in listed.values():
        assert file_digest(folder / entry["file"]) == entry["sha256"]
        assert {"source", "licence", "dataset", "metrics"} <= entry.keys()


def test_a_changed_shipped_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for file in weights.shipped_dir().glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    data = bytearray((tmp_path / "resnet20-digits.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "resnet20-digits.safetensors").write_bytes(data)
    monkeypatch.setattr(sources, "shipped_dir", lambda: tmp_path)
    with pytest.raises(IntegrityError, match="resnet20-digits"):
        weights.plan(RESNET20, "auto", 0, tmp_path)


def test_the_shipped_resnet20_scores_what_weights_toml_says(tmp_path: Path):
    found = weights.plan(RESNET20, "auto", 0, tmp_path)
    assert found.path
    assert (found.record.kind, found.record.ref, found.record.num_classes) == ("shipped", "resnet20-digits", 10)
    model = resnet20(found.record.num_classes).eval()
    weights.apply(model, weights.load_state(found.path), found.record.ref)
    digits = Digits()
    samples = digits.samples("held-out")
    images = np.stack([apply(RESNET20.input.preprocess, digits.image(sample)) for sample in samples])
    with torch.inference_mode():
        decided = model(torch.from_numpy(images)).argmax(1).tolist()
    correct = sum(index == sample.label for index, sample in zip(decided, samples, strict=True))
    listed = tomllib.loads((weights.shipped_dir() / "weights.toml").read_text("utf-8"))["resnet20-digits"]
    assert listed["metrics"] == {"correct": correct, "total": 360}


def test_loading_does_not_change_the_state(state: dict[str, torch.Tensor], tmp_path: Path):
    before = copy.deepcopy(state)
    weights.apply(Net(classes=5), state, "net")
    assert same(state, before)
