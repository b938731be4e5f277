"""Which files are images, arrays, videos or labels, by the endings of their names."""

from __future__ import annotations

from pathlib import Path

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""Endings of image files."""
ARRAY_ENDINGS = (".npy", ".npz")
"""Endings of NumPy files."""
LABEL_ENDINGS = (".png", ".npy", ".npz", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jpg", ".jpeg")
"""Endings of label files."""
CONFIDENCE_ENDINGS = (".png", ".npy", ".npz", ".tif", ".tiff")
"""Endings of files of confidences."""
VIDEO_ENDINGS = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv", ".ogv",
    ".3gp",
)  # fmt: skip
"""Endings of the files in a folder that are videos; a file that is named itself may have any."""
EXPORTED_ENDINGS = (".onnx", ".xml")
"""Endings of exported models that predict here."""
CONFIDENCE = "confidence"
"""The folder of what each pixel of a discovered label is worth: ``confidence/TASK/ID.png``."""


def is_exported(path: str | Path) -> bool:
    """Whether a model is a file that `tasktokens export` wrote, rather than a folder."""
    return Path(path).suffix.lower() in EXPORTED_ENDINGS and not Path(path).is_dir()
