"""The malformed inputs: which file is spoiled how, and which verb reads it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import faults_damage as damage
from faults_config import CONFIGS, DESCRIPTIONS, OVERRIDES
from faults_damage import ARCHIVE, ARRAY, FILE, LABEL, PICTURE, as_ending, instead, text
from faults_input import TRAIN, Case

ROOT = "data.root={work}/data"
MANY = 4
"""Random truncations, and as many random changes, of a file of each format."""
SAME = ("harmless",)
PASSED = ("skip",)
"""A damaged checkpoint may be passed over by name."""


def cases() -> Iterator[Case]:
    """All, in a fixed order."""
    yield from _images()
    yield from _labels()
    yield from _configs()
    yield from _lists()
    yield from _manifests()
    yield from _checkpoints()
    yield from _models()
    yield from _run_folders()
    yield from _public()


def _train(*more: str) -> tuple[str, ...]:
    return ("train", "-q", ROOT, *TRAIN, "run.dir={work}/new", *more)


NOCHECK = "data.check=false"


# -- images and labels -------------------------------------------------------------------------------------------------
def _images() -> Iterator[Case]:
    data, first = {"data": "tiny"}, "data/images/im00.png"
    verbs = cycle(
        [
            (("check", "{work}/data"), ()),
            (_train(NOCHECK), ()),
            (("predict", "{given}/run", "{work}/data/images", "--out", "{work}/out", "-q"), ()),
            (_train("data.skip_corrupt=true"), ("skip",)),
            (("explain", "{given}/run", first.replace("data", "{work}/data", 1), "--out", "{work}/out", "-q"), ()),
            (
                ("prepare", "--data", "folder", "--root", "{work}/data", "--out", "{work}/out", "--workers", "1", "-q"),
                (),
            ),
            (_train(), ()),
        ]
    )
    for name, spoil in [*FILE.items(), *PICTURE.items()]:
        for _ in range(2):
            words, may = next(verbs)
            yield Case("images", f"{name}, {words[0]}", data, first, spoil, words, may)
    for name, spoil in [*ARRAY.items(), *ARCHIVE.items()]:
        ending = ".npz" if name.startswith("npz") else ".npy"
        words, may = next(verbs)
        file = f"{{work}}/data/images/im00{ending}"
        words = tuple(file if word.endswith(("/images", "im00.png")) else word for word in words)
        yield Case("images", f"{name}, {words[0]}", data, first, as_ending(ending, spoil), words, may)
    predict = ("predict", "{given}/run", "{work}/data/*", "--out", "{work}/out", "-q")
    for ending in ("png", "jpg", "tif", "bmp", "webp"):
        for number in range(MANY):
            for what in ("truncated", "bytes flipped", "head flipped"):
                words = (*predict[:2], f"{{work}}/data/a_{ending}.{ending}", *predict[3:])
                file = f"data/a_{ending}.{ending}"
                yield Case("images", f"{ending} {what} {number}", {"data": "formats"}, file, FILE[what], words, SAME)
    odd = ("leer zeichen", "ünïcödé-写真", "[red]x[bold]", "%s {0} $HOME", "-q", "a" * 200)
    for name in odd:
        file = "data/images/im00.png"
        spoil = instead(lambda path, name=name: path.with_name(f"{name}.png").write_bytes(damage.png(56, 40)))
        for words in (("check", "{work}/data"), predict):
            words = tuple(word.replace("data/*", "data/images/*") for word in words)
            yield Case("names", f"{name}, {words[0]}", data, file, spoil, words, SAME)
    for name in ("a\nb", "tab\t", b"\xff\xfe".decode(errors="surrogateescape"), "\u2028", "esc\x1b[31m"):
        spoil = instead(
            lambda path, name=name: (
                path.rename(path.with_name(f"{name}.png"))
                if path.exists()
                else path.with_name(f"{name}.png").write_bytes(damage.png(56, 40))
            )
        )
        for words in (("check", "{work}/data"), (*predict[:2], "{work}/data/images", *predict[3:])):
            yield Case("names", f"{name!r}, {words[0]}", data, "data/images/im07.png", spoil, words)
    for pattern in (
        "{work}/data/*/../images/im00.png",
        "{work}/data/nothing*",
        "{work}/data/[",
        "**",
        "{work}/data/edge/*/",
    ):
        words = (*predict[:2], pattern, *predict[3:])
        yield Case("names", f"pattern {pattern}", data, None, None, words)


def _labels() -> Iterator[Case]:
    data = {"data": "kinds"}
    tasks = {
        "semseg": "png",
        "depth": "png",
        "normals": "png",
        "edge": "png",
        "saliency": "png",
        "mask": "png",
        "heat": "npy",
        "flow": "npy",
    }
    verbs = cycle([("check", "{work}/data"), _train(NOCHECK, "data.labels=full"), _train("data.labels=full")])
    kinds = cycle(tasks.items())
    for name, spoil in [*FILE.items(), *PICTURE.items(), *ARRAY.items(), *ARCHIVE.items()]:
        task, ending = next(kinds)
        new = name[:3] if name[:3] in ("npy", "npz") else "png" if name in PICTURE else ending
        for words in (next(verbs), next(verbs)):
            # A folder of a label's name is no label, and what is not there is missing.
            may = SAME if name in ("bytes flipped", "a folder") else ()
            yield Case(
                "labels",
                f"{task}: {name}, {words[0]}",
                data,
                f"data/{task}/im00.{ending}",
                as_ending(f".{new}", spoil) if new != ending else spoil,
                words,
                may,
            )
    for task, ending in tasks.items():
        for name, spoil in LABEL.items():
            words = next(verbs)
            # What a task takes for a value or for void is no mistake of the file.
            fine = ("not a number", "infinity", "1e38", "minus 5", "64-bit", "bool", "two channels", "transposed")
            yield Case(
                "labels",
                f"{task}: {name}, {words[0]}",
                data,
                f"data/{task}/im00.{ending}",
                spoil,
                words,
                SAME if name.startswith(fine) else (),
            )
    words = ("init", "{work}/data", "--force")
    for name in ("empty", "random bytes", "a folder", "a pickle", "a link to itself", "a pipe"):
        yield Case("labels", f"semseg: {name}, init", data, "data/semseg/im00.png", FILE[name], words, ("skip", *SAME))
    for name in ("empty", "random bytes"):
        skip = _train("data.labels=full", "data.skip_corrupt=true")
        yield Case("labels", f"depth: {name}, skipped", data, "data/depth/im00.png", FILE[name], skip, ("skip",))


# -- configurations and lists ------------------------------------------------------------------------------------------
def _configs() -> Iterator[Case]:
    data = {"data": "tiny", "config": "tiny"}
    words = ("train", "--config", "{work}/config/dataset.yaml", "-q")
    for name, content in CONFIGS.items():
        yield Case("configs", name, data, "config/dataset.yaml", text(content), words)
    for name in FILE:
        if name != "a pipe":  # a shell gives one for <(command), and it is read
            may = SAME if name == "empty" else ()
            yield Case(
                "configs",
                name,
                data,
                "config/dataset.yaml",
                FILE[name],
                (*words, *TRAIN, ROOT, "run.dir={work}/new"),
                may,
            )
    for override in OVERRIDES:
        yield Case("configs", override[:60], {"data": "tiny"}, None, None, _train(NOCHECK, override))
    for name, content in DESCRIPTIONS.items():
        for words in (("check", "{work}/data"), _train(NOCHECK)):
            may = SAME if (name, words[0]) == ("no training split", "check") else ()
            yield Case(
                "descriptions", f"{name}, {words[0]}", {"data": "tiny"}, "data/dataset.yaml", text(content), words, may
            )
    for name, spoil in FILE.items():
        yield Case("descriptions", name, {"data": "tiny"}, "data/dataset.yaml", spoil, ("check", "{work}/data"))


def _lists() -> Iterator[Case]:
    data = {"data": "tiny"}
    lines = {
        "unknown ids": "im00\nim99\n",
        "paths that lead out": "../../etc/passwd\n",
        "absolute paths": "/etc/passwd\n",
        "with endings": "im00.png\n",
        "commas": "im00,im01\n",
        "UTF-16": "im00\n".encode("utf-16").decode("latin-1"),
        "one long line": "im00 " * 100_000,
        "no ids": "\n\n",
    }
    for name, content in lines.items():
        yield Case("lists", name, data, "data/train.txt", text(content), _train())
    for name, spoil in FILE.items():
        yield Case("lists", name, data, "data/train.txt", spoil, _train(NOCHECK))
    header = "id,semseg,depth,normals,edge,saliency\n"
    splits = {
        "no header": "im00,1,0,0,0,0\n",
        "a column less": "id,semseg\nim00,1\n",
        "text": header + "im00,yes,no,no,no,no\n",
        "short rows": header + "im00,1\n",
        "long rows": header + "im00,1,1,1,1,1,1,1\n",
        "no label of a task": header + "im00,1,0,0,0,0\n",
        "an unknown id alone": header + "im99,1,1,1,1,1\n",
        "numbers out of range": header + "im00,1,2,-1,1e9,NaN\n",
        "a cell of a megabyte": header + "i" * 2**20,
        "null characters": header + "im\0\0,1,1,1,1,1\n",
        "an open quote": header + '"im00,1,1,1,1,1\n',
    }
    words = _train(NOCHECK, "data.labels={work}/data/test.csv")
    for name, content in splits.items():
        yield Case("lists", f"labels: {name}", data, "data/test.txt", _beside(content), words)
    for name in ("empty", "random bytes", "a folder", "a link to itself", "zeros"):

        def spoil(path: Path, dice: random.Random, name: str = name) -> None:
            path.with_suffix(".csv").write_text("x")
            FILE[name](path.with_suffix(".csv"), dice)

        yield Case("lists", f"labels: {name}", data, "data/test.txt", spoil, words)


def _beside(content: str) -> damage.Damage:
    return lambda path, dice: path.with_suffix(".csv").write_text(content) and None


def _manifests() -> Iterator[Case]:
    data, check = {"data": "table"}, ("check", "{work}/data")
    header, row = "image,semseg,depth,normals,edge,saliency,split\n", "images/im00.png,,,,,,train\n"
    tables = {
        "no rows": header,
        "no header": row,
        "a path that leads out": header + "../tiny/images/im00.png,,,,,,train\n",
        "a path of dots": header + "images/../../x.png,,,,,,train\n",
        "no image": header + ",,,,,,train\n",
        "a missing image": header + "images/x.png,,,,,,train\n",
        "an image twice": header + row + row,
        "a label that is text": header + "images/im00.png,train.txt,,,,,train\n",
        "a folder": header + "images,,,,,,\n",
        "too many cells": header + "images/im00.png,,,,,,train,,,,\n",
        "null characters": header + "images/\0.png,,,,,,\n",
        "a split that leads out": header + "images/im00.png,,,,,,../../x\n",
        "an open quote": header + '"images/im00.png\n',
        "an unknown column for a task": header.replace("depth", "dept") + row,
        "an absolute device": header + "/dev/zero,,,,,,\n",
        "a cell of a megabyte": header + "i" * 2**20 + ",,,,,,\n",
        "two columns of one name": "image,image\na,b\n",
    }
    for name, content in tables.items():
        yield Case("manifests", f"csv: {name}", data, "data/files.csv", text(content), check)
    for name, spoil in FILE.items():
        yield Case("manifests", f"csv: {name}", data, "data/files.csv", spoil, _train(NOCHECK))
    for name, spoil in [
        *FILE.items(),
        *(("truncated again", damage.cut) for _ in range(3)),
        *((f"bytes flipped {n}", damage.flip) for n in range(6)),
    ]:

        def both(path: Path, dice: random.Random, spoil: damage.Damage = spoil) -> None:
            named = path.parent / "dataset.yaml"
            named.write_text(named.read_text().replace("files.csv", "files.parquet"))
            spoil(path, dice)

        yield Case(
            "manifests", f"parquet: {name}", data, "data/files.parquet", both, check, SAME if "flipped" in name else ()
        )


# -- runs --------------------------------------------------------------------------------------------------------------
def _checkpoints() -> Iterator[Case]:
    folder = "run/checkpoints/0-0000003"
    resume = ("train", "-q", "--resume", "--config", "{work}/run/config.yaml", "run.dir={work}/run")
    files = ("student.safetensors", "optimizer.safetensors", "cursor.json")
    for file in files:
        for name, spoil in FILE.items():
            yield Case(
                "checkpoints", f"{file}: {name}", {"run": "stopped"}, f"{folder}/{file}", _own(spoil), resume, PASSED
            )
        for number in range(MANY):
            for what in ("truncated", "head flipped"):
                yield Case(
                    "checkpoints",
                    f"{file}: {what} {number}",
                    {"run": "stopped"},
                    f"{folder}/{file}",
                    _own(FILE[what]),
                    resume,
                    PASSED,
                )
        gone = instead(lambda path: None)
        yield Case(
            "checkpoints", f"{file}: missing", {"run": "stopped"}, f"{folder}/{file}", _own(gone), resume, PASSED
        )
    cursors = (
        {"stage": 99, "step": 0},
        {"stage": -1, "step": 0},
        {"stage": 0, "step": -5},
        {"stage": 0, "step": 10**30},
        {"stage": 0.5, "step": "x"},
        {"stage": None, "step": None},
        [],
        {"stage": [0], "step": {}},
        "1",
        {},
    )
    for cursor in cursors:
        spoil = _own(text(json.dumps(cursor)))
        yield Case(
            "checkpoints", f"cursor {cursor}", {"run": "stopped"}, f"{folder}/cursor.json", spoil, resume, PASSED
        )
    yield Case(
        "checkpoints",
        "cursor nested",
        {"run": "stopped"},
        f"{folder}/cursor.json",
        _own(text("[" * 99_999)),
        resume,
        PASSED,
    )


def _own(spoil: damage.Damage) -> damage.Damage:
    """Of a copied run, whose settings must name the copy."""

    def both(path: Path, dice: random.Random) -> None:
        config = path.parents[2] / "config.yaml"
        original = next(line for line in config.read_text().splitlines() if line.strip().startswith("dir:"))
        config.write_text(config.read_text().replace(original, f"  dir: {path.parents[2]}"))
        spoil(path, dice)

    return both


_TASK = {"kind": "depth", "range": [0.5, 10.0], "bins": 8}


def _models() -> Iterator[Case]:
    verbs = cycle(
        [
            ("predict", "{work}/run", "{given}/tiny/images/im00.png", "--out", "{work}/out", "-q"),
            ("evaluate", "{work}/run"),
            ("discover", "{work}/run", "--out", "{work}/out", "-q"),
            ("explain", "{work}/run/model", "{given}/tiny/images/im00.png", "--out", "{work}/out", "-q"),
        ]
    )
    for file in ("model.safetensors", "model.json"):
        for name, spoil in FILE.items():
            yield Case(
                "models",
                f"{file}: {name}",
                {"run": "run"},
                f"run/model/{file}",
                spoil,
                next(verbs),
                SAME if name == "bytes flipped" else (),
            )
        for number in range(MANY):
            yield Case(
                "models",
                f"{file}: truncated {number}",
                {"run": "run"},
                f"run/model/{file}",
                FILE["truncated"],
                next(verbs),
            )
            yield Case(
                "models",
                f"{file}: head flipped {number}",
                {"run": "run"},
                f"run/model/{file}",
                FILE["head flipped"],
                next(verbs),
                SAME,
            )
        yield Case(
            "models", f"{file}: missing", {"run": "run"}, f"run/model/{file}", instead(lambda path: None), next(verbs)
        )
    changes = (
        {"format": 0},
        {"format": 99},
        {"format": "x"},
        {"network": "x"},
        {"network": ["htt"]},
        {"size": [0, 0]},
        {"size": [-5, 7]},
        {"size": [10**9, 10**9]},
        {"size": "96x128"},
        {"size": None},
        {"size": ["a", "b"]},
        {"size": [1.5, 2.5]},
        {"tasks": {}},
        {"tasks": []},
        {"tasks": {"../../x": _TASK}},
        {"tasks": {"depth": _TASK | {"bins": 10**9}}},
        {"tasks": {"depth": _TASK | {"kind": "x"}}},
        {"tasks": {"depth": None}},
        {"tasks": {"depth": _TASK | {"range": [1, "x"]}}},
        {"tasks": {"depth": _TASK | {"weight": 1e999}}},
        {"tasks": {"a": {"kind": "classes", "classes": 5}}},
        {"model": {}},
        {"model": None},
        {"model": {"backbone": "x"}},
        {"model": {"width": 10**9}},
        {"model": {"variant": 7}},
        {"model": {"backbone": "hf-hub:somebody/something"}},
        {"model": {"backbone": "../../x"}},
    )
    for change in changes:

        def spoil(path: Path, dice: random.Random, change: dict[str, object] = change) -> None:
            path.write_text(json.dumps(json.loads(path.read_text()) | change))

        yield Case("models", f"model.json: {change}", {"run": "run"}, "run/model/model.json", spoil, next(verbs))
    for content in ("[" * 99_999, "null", "[]", "7", '{"format": 1' + "0" * 5000 + "}", '{"format": NaN}'):
        yield Case(
            "models", f"model.json: {content[:20]}", {"run": "run"}, "run/model/model.json", text(content), next(verbs)
        )
    weights = _train(NOCHECK, "model.weights={work}/run/model/model.safetensors")
    for name in ("empty", "truncated", "a pickle", "random bytes", "a folder", "a link to itself", "zeros"):
        yield Case(
            "models",
            f"model.weights: {name}",
            {"data": "tiny", "run": "run"},
            "run/model/model.safetensors",
            FILE[name],
            weights,
        )
        pth = tuple(word.replace(".safetensors", ".pth") for word in weights)
        yield Case(
            "models",
            f"model.weights: {name} as .pth",
            {"data": "tiny", "run": "run"},
            "run/model/model.safetensors",
            as_ending(".pth", FILE[name]),
            pth,
        )
    start = ("train", "-q", "data.root={given}/tiny", *TRAIN, "run.dir={work}/new", "--init-from", "{work}/run")
    for name in ("truncated", "a pickle", "a folder"):
        yield Case("models", f"--init-from: {name}", {"run": "run"}, "run/model/model.safetensors", FILE[name], start)


def _run_folders() -> Iterator[Case]:
    run = {"run": "run", "other": "run"}
    listing, comparing = ("runs", "{work}"), ("runs", "{work}/run", "{work}/other")
    for file in ("config.yaml", "metrics.jsonl", "evaluation-test.json"):
        for name, spoil in FILE.items():
            if name not in ("a pipe", "an endless device") or file != "metrics.jsonl":
                yield Case("run folders", f"{file}: {name}", run, f"run/{file}", spoil, listing, ("skip", *SAME))
    for file in ("config.yaml", "evaluation-test.json", "model/model.json"):
        for name in ("empty", "truncated", "random bytes", "a folder", "zeros"):
            yield Case("run folders", f"{file}: {name}, compared", run, f"run/{file}", FILE[name], comparing, SAME)
    for content in (
        '{"semseg": 5}',
        '{"semseg": {"mIoU": "x"}}',
        "[]",
        "null",
        "[" * 99_999,
        '{"semseg": {"mIoU": []}}',
        "7",
    ):
        for words in (listing, comparing):
            yield Case(
                "run folders",
                f"evaluation: {content[:24]}, {words[1:]}",
                run,
                "run/evaluation-test.json",
                text(content),
                words,
                SAME,
            )
    rows = (
        '{"step": "x", "stage": "train"}',
        '{"minutes": "x"}',
        '{"minutes": []}',
        "[" * 99_999,
        "null\n7\n[]\n",
        '{"stage": ["a"], "step": {}}',
        '{"finished": {"a": 1}, "minutes": {}}',
    )
    for content in rows:
        yield Case(
            "run folders", f"metrics: {content[:24]}", run, "run/metrics.jsonl", text(content), listing, ("skip", *SAME)
        )
    for name in ("empty", "truncated", "random bytes", "a folder", "zeros"):
        words = ("discover", "{work}/run", "--out", "{work}/out", "-q")
        yield Case(
            "run folders",
            f"labels.csv: {name}",
            run,
            "run/labels.csv",
            FILE[name],
            words,
            SAME if name == "truncated" else (),
        )
    odd = ("{work}/nowhere", "{work}/run/metrics.jsonl", "/dev/null", "{work}/" + "a" * 300, "{work}/run\n")
    for path in odd:
        for verb in ("evaluate", "runs", "check", "init"):
            yield Case("run folders", f"{verb} {path[:20]!r}", run, None, None, (verb, path))


# -- public data sets and prepared folders -----------------------------------------------------------------------------
def _public() -> Iterator[Case]:
    files = {
        "cityscapes": ("camera/train/*/*.json", "gtFine/train/*/*labelIds.png", "disparity/train/*/*.png"),
        "cityscapes_mtan": ("train/image/0.npy", "train/label_7/0.npy", "train/depth/0.npy"),
        "nyud_mtan": ("train/image/0.npy", "train/label/0.npy", "train/normal/0.npy"),
        "nyud": ("nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat"),
        "pascal": (
            "human_parts/2008_000000.mat",
            "pascal-context/trainval/2008_000000.mat",
            "ImageSets/Context/train.txt",
            "ImageSets/Parts/train.txt",
        ),
    }
    kinds = {"cityscapes_mtan": "cityscapes", "nyud_mtan": "nyud", "pascal": "pascal_context"}
    names = cycle(
        [
            "empty",
            "truncated",
            "random bytes",
            "a pickle",
            "zeros",
            "head flipped",
            "a link to itself",
            "bytes flipped",
            "a folder",
            "a letter",
        ]
    )
    for source, patterns in files.items():
        words = ("check", "--data", kinds.get(source, source), "--root", "{work}/data", "-q")
        more = ("--depth", "metres") if source == "cityscapes" else ()
        for pattern in patterns:
            for name in (next(names) for _ in range(4)):

                def spoil(path: Path, dice: random.Random, pattern: str = pattern, name: str = name) -> None:
                    FILE[name](sorted(path.parent.glob(pattern))[0], dice)

                verb = words if not more else ("prepare", *words[1:], *more, "--out", "{work}/out", "--workers", "1")
                yield Case("public data", f"{source}/{pattern}: {name}", {"data": source}, "data/x", spoil, verb, SAME)
    for file in ("prepared.json", "checksums.sha256", "dataset.yaml", "images/im00.png"):
        for name in ("empty", "truncated", "random bytes", "a folder", "zeros", "a link to itself"):
            yield Case(
                "prepared folders",
                f"{file}: {name}",
                {"data": "prepared"},
                f"data/{file}",
                FILE[name],
                ("prepare", "--verify", "{work}/data", "-q"),
            )
    for content in ("[" * 99_999, "null", "[]", "7", "{}", '{"checksums": 5, "settings": []}'):
        again = (
            "prepare",
            "--data",
            "folder",
            "--root",
            "{given}/tiny",
            "--out",
            "{work}/data",
            "--workers",
            "1",
            "-q",
        )
        yield Case(
            "prepared folders",
            f"prepared.json: {content[:24]}",
            {"data": "prepared"},
            "data/prepared.json",
            text(content),
            again,
        )
