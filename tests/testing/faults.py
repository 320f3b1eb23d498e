"""Wrong plugins: the scaffold's own plugin with one thing made wrong, the check that is to catch it, and the line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qzoo.testing.scaffold import scaffold

SPEC, MODEL, INIT = "spec.py", "model.py", "__init__.py"


@dataclass(frozen=True)
class Wrong:
    """`edits` are (file, old text, new text); `line` is a part of the line that the finding must lead to."""

    name: str
    check: str
    says: str
    line: str
    edits: tuple[tuple[str, str, str], ...]


ADD = "self.add(skip, branch)"
HEAD = '    head="head",\n'
LINEAR = "        self.head = nn.Linear(16, num_classes)\n"
ORDINARY = """

def Ordinary(num_classes):
    network = Network(num_classes)
    network.act = nn.Tanh()
    return network
"""
RUNTIME = """

from qzoo.backends.ort import OnnxRuntime
from qzoo.hookspecs import Engine


class Rounding(Engine):
    def __init__(self, engine):
        self.engine, self.record = engine, engine.record

    def run(self, inputs):
        return {name: values.round() for name, values in self.engine.run(inputs).items()}


class Rough(OnnxRuntime):
    name = "rough"

    def load(self, engine, record, threads=None):
        return Rounding(super().load(engine, record, threads))


@hookimpl
def qzoo_backends():
    yield Rough()
"""
CLASS_OF_ITS_OWN = 'integers."""'

WRONG = (
    Wrong(
        "spec-of-tuples",
        "spec",
        "builder_args",
        "builder_args=",
        ((SPEC, HEAD, HEAD + '    builder_args={"widths": (16, 16)},\n'),),
    ),
    Wrong(
        "spec-of-objects",
        "spec",
        "can't be written as JSON",
        "builder_args=",
        ((SPEC, HEAD, HEAD + '    builder_args={"make": object()},\n'),),
    ),
    Wrong(
        "imports-torch",
        "imports",
        "imports torch",
        "import torch",
        ((SPEC, "\nSPEC", "\nimport torch\n\nSPEC"),),
    ),
    Wrong(
        "ignores-the-class-count",
        "builder",
        "built for 11 classes",
        "class Network",
        ((MODEL, "nn.Linear(16, num_classes)", "nn.Linear(16, 10)"),),
    ),
    Wrong("no-such-head", "builder", "head 'classifier'", "head=", ((SPEC, HEAD, '    head="classifier",\n'),)),
    Wrong(
        "outputs-that-are-not-there",
        "builder",
        "names 2 outputs",
        "outputs=",
        ((SPEC, HEAD, HEAD + '    outputs=("logits", "aux"),\n'),),
    ),
    Wrong(
        "builder-that-raises",
        "builder",
        "ValueError: no",
        "raise ValueError",
        ((MODEL, "super().__init__()", 'raise ValueError("no")'),),
    ),
    Wrong(
        "patches-torch-nn",
        "globals",
        "torch.nn.ReLU is replaced",
        "nn.ReLU = ",
        ((MODEL, "\n\nclass Network", "\n\nnn.ReLU = nn.ReLU6\n\n\nclass Network"),),
    ),
    Wrong(
        "sets-the-default-dtype",
        "globals",
        "default_dtype is torch.float64",
        "set_default_dtype",
        ((MODEL, "\n\nclass Network", "\n\nimport torch\ntorch.set_default_dtype(torch.float64)\n\n\nclass Network"),),
    ),
    Wrong(
        "seeds-torch",
        "globals",
        "--seed decides nothing",
        "manual_seed",
        ((MODEL, "super().__init__()", "super().__init__()\n        __import__('torch').manual_seed(0)"),),
    ),
    Wrong(
        "seeds-numpy",
        "globals",
        "NumPy's global random state",
        "random.seed",
        ((MODEL, "super().__init__()", "super().__init__()\n        __import__('numpy').random.seed(0)"),),
    ),
    Wrong(
        "a-tensor-that-is-no-buffer",
        "state-dict",
        "isn't in the state dict",
        "self.gain = ",
        (
            (MODEL, "from torch import Tensor, nn", "import torch\nfrom torch import Tensor, nn"),
            (MODEL, "self.add = Add()", "self.add = Add()\n        self.gain = torch.rand(16, 1, 1)"),
            (MODEL, "self.bn(self.conv(skip))", "self.bn(self.conv(skip)) * self.gain"),
        ),
    ),
    Wrong(
        "other-than-its-reference",
        "reference",
        "differs by",
        "def forward",
        (
            (SPEC, HEAD, HEAD + '    reference="MODULE.model:Ordinary",\n'),
            (
                MODEL,
                "\n\nclass Network",
                ORDINARY + "\n\nclass Network",
            ),
        ),
    ),
    Wrong(
        "depends-on-the-batch",
        "batch",
        "depends on the batch",
        "def forward",
        ((MODEL, "self.stem(x)", "self.stem(x - x.mean(0))"),),
    ),
    Wrong(
        "fusion-that-matches-nothing",
        "fusions",
        "matches no module",
        "stage*.conv",
        (
            (
                SPEC,
                '        Fusion("conv", "bn"),\n',
                '        Fusion("conv", "bn"),\n        Fusion("stage*.conv", "bn"),\n',
            ),
        ),
    ),
    Wrong(
        "batchnorm-in-no-fusion",
        "fusions",
        "bn is in no fusion",
        "fusions=",
        ((SPEC, '        Fusion("conv", "bn"),\n', ""),),
    ),
    Wrong(
        "batchnorms-crossed",
        "fusions",
        "folding BatchNorms changes the outputs",
        "Fusion(",
        ((SPEC, '"stem", "stem_bn"', '"stem", "bn"'), (SPEC, '"conv", "bn"', '"conv", "stem_bn"')),
    ),
    Wrong(
        "swap-that-matches-nothing", "swaps", "'adds' matches no module", "adds", ((SPEC, 'path="add"', 'path="adds"'),)
    ),
    Wrong(
        "swap-that-adds-a-tensor",
        "swaps",
        "act.extra is added by the swap",
        "class QuantSigmoid",
        (
            (
                MODEL,
                CLASS_OF_ITS_OWN,
                CLASS_OF_ITS_OWN + "\n\n    @classmethod\n    def from_float(cls, module, weight_axis):\n"
                "        made = super().from_float(module, weight_axis)\n"
                "        made.extra = nn.Parameter(__import__('torch').ones(1))\n        return made\n",
            ),
        ),
    ),
    Wrong(
        "swap-that-computes-otherwise",
        "swaps",
        "computes something else than its twin",
        "class QuantSigmoid",
        ((MODEL, CLASS_OF_ITS_OWN, CLASS_OF_ITS_OWN + "\n\n    def forward(self, x):\n        return x.tanh()\n"),),
    ),
    Wrong(
        "python-decides-by-values",
        "build",
        "can't export",
        "if float(",
        ((MODEL, "        skip = ", "        if float(x.sum()) > 0:\n            x = x * 1.0\n        skip = "),),
    ),
    Wrong(
        "add-as-an-operator",
        "coverage",
        "1 add(s) in float, called as operators",
        "skip + branch",
        (
            (MODEL, ADD, "skip + branch"),
            (MODEL, "        self.add = Add()\n", ""),
            (SPEC, '        QuantSwap("qzoo.quant.modules:QuantAdd", path="add"),\n', ""),
        ),
    ),
    Wrong(
        "add-that-no-swap-takes",
        "coverage",
        "add (Add) is in float",
        "self.add = Add()",
        ((SPEC, '        QuantSwap("qzoo.quant.modules:QuantAdd", path="add"),\n', ""),),
    ),
    Wrong(
        "linear-that-no-swap-takes",
        "coverage",
        "head (Linear) is in float",
        "self.head = nn.Linear",
        ((SPEC, '        QuantSwap("qzoo.quant.modules:QuantLinear", type="torch.nn.Linear"),\n', ""),),
    ),
    Wrong(
        "exports-something-else",
        "export",
        "from the network it came from",
        "class Network",
        (
            (MODEL, "from torch import Tensor, nn", "import torch\nfrom torch import Tensor, nn"),
            (
                MODEL,
                "        skip = ",
                "        if torch.compiler.is_exporting():\n            x = x.flip(3)\n        skip = ",
            ),
        ),
    ),
    Wrong(
        "a-runtime-that-rounds",
        "engines",
        "the rough engine is",
        '"rough"',
        ((INIT, "    yield SPEC\n", "    yield SPEC\n" + RUNTIME),),
    ),
    Wrong(
        "draws-of-its-own",
        "determinism",
        "a second build gives other",
        "random.random()",
        (
            (MODEL, "from torch import Tensor, nn", "import random\n\nfrom torch import Tensor, nn"),
            (
                MODEL,
                LINEAR,
                LINEAR + "        nn.init.constant_(self.stem.weight, random.random())\n",
            ),
        ),
    ),
)


def write_wrong(wrong: Wrong, folder: Path) -> Path:
    """Write the plugin, and return its project's folder."""
    project = scaffold(f"wrong-{wrong.name}", folder)
    module = project.name.replace("-", "_")
    for file, old, new in wrong.edits:
        path = project / module / file
        text = path.read_text()
        assert old in text, f"{wrong.name}: the scaffold has no {old!r}"
        path.write_text(text.replace(old, new.replace("MODULE", module), 1))
    return project
