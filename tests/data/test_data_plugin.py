from __future__ import annotations

import subprocess
import sys

from qzoo.data.plugin import qzoo_datasets


def run(code: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_importing_the_plugin_loads_no_library():
    run(
        "import sys, qzoo.data.plugin as p; list(p.qzoo_datasets());"
        "assert not {'sklearn', 'PIL', 'numpy', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )


def test_no_data_module_loads_torch():
    run(
        "import sys; from qzoo.data import decode, digits, folder, labels, photos, plugin, sampler;"
        "from qzoo.spec import Preprocess;"
        "d = digits.Digits(); s = sampler.choose(d, 'calibration', 4, 0);"
        "p = Preprocess(mode='L', resize=8, crop=8, mean=(0.,), std=(1.,));"
        "decode.decode_samples(d, s, p); photos.Photos().samples('held-out');"
        "assert not {'torch', 'torchvision'} & set(sys.modules)"
    )


def test_each_dataset_opens_under_its_name():
    for source in qzoo_datasets():
        dataset = source.open()
        assert dataset.name == source.name
        assert dataset.samples("calibration")
        assert dataset.samples("held-out")
