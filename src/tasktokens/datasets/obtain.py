"""How to get each benchmark: the user downloads it, under its owners' terms. docs/datasets.md says more."""

from __future__ import annotations

HOW_TO_GET = {
    "nyud": "no registration; nyu_depth_v2_labeled.mat (2.8 GB) from https://cs.nyu.edu/~fergus/datasets/"
    "nyu_depth_v2.html, splits.mat from https://cs.nyu.edu/~silberman/projects/indoor_scene_seg_sup.html and "
    "classMapping40.mat from https://github.com/ankurhanda/nyuv2-meta-data into one folder; or MTAN's nyuv2.zip "
    "(about 8.5 GB, linked in https://github.com/lorenmt/mtan), unpacked",
    "cityscapes": "register at https://www.cityscapes-dataset.com and unpack into one folder "
    "leftImg8bit_trainvaltest.zip (11 GB), gtFine_trainvaltest.zip (241 MB), disparity_trainvaltest.zip (3.5 GB) and, "
    "for depth in metres, camera_trainvaltest.zip (2 MB); or MTAN's cityscapes2.zip (651 MB, linked in "
    "https://github.com/lorenmt/mtan), unpacked",
    "pascal_context": "no registration; PASCALContext.tar.gz of ATRC (size not stated), named in "
    "https://github.com/prismformore/Multi-Task-Transformer/tree/main/InvPT, unpacked: the folder with JPEGImages",
    "folder": "your own: images/ and one folder a task; `tasktokens init` describes it",
}
