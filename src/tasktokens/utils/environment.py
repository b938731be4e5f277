"""Environment variables that other libraries read: a run's settings come first; relevant variables are recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tasktokens.errors import ConfigError

_ACCELERATE = "ACCELERATE_"
_ON_SCREEN = ("ACCELERATE_LOG_LEVEL", "ACCELERATE_DEBUG_MODE")
"""What accelerate prints."""

_OTHER_TRAINING = tuple(
    f"ACCELERATE_USE_{name}" for name in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG", "SAGEMAKER")
)
"""These are also read during training."""

_PRECISION = (
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE",
)  # fmt: skip
"""Read when torch, cuBLAS or oneDNN is loaded, before any setting of ours."""

_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets for each process."""

_RECORDED = (_ACCELERATE, "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "NCCL_", "TORCH_NCCL_")
"""Beginnings of names; those of ranks and ports differ from run to run and say nothing."""

_RECORDED_NAMES = (
    *_PRECISION, "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES",
    "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "OMP_NUM_THREADS", "OMP_WAIT_POLICY",
    "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY",
)  # fmt: skip


def check_environment() -> None:
    """Raise `ConfigError` where a variable would change how a network is trained and cannot be passed over."""
    for name in _OTHER_TRAINING:
        if os.environ.get(name, "").lower() in ("1", "true", "yes", "on", "y", "t"):
            raise ConfigError(
                f"the environment variable {name}={os.environ[name]} asks for a way of training that this package does "
                f"not have; unset it, and start several processes with torchrun (docs/operate/scaling.md)"
            )
    for name in _PRECISION:
        if os.environ.get(name, "").lower() not in ("", "0", "strict"):
            raise ConfigError(
                f"the environment variable {name}={os.environ[name]} changes the precision of results; "
                f"unset it, and choose by run.precision"
            )
    _check_ranks()


def _check_ranks() -> None:
    """torchrun sets all of them; a leftover of another program is -1, or stands alone."""
    ranks = {name: os.environ[name] for name in _RANKS if os.environ.get(name, "-1") not in ("", "-1")}
    hint = "unset it, or start the processes with torchrun (docs/operate/scaling.md)"
    for name in ranks.keys() & {"RANK", "LOCAL_RANK", "WORLD_SIZE"}:
        if not ranks[name].isdigit():
            raise ConfigError(
                f"the environment variable {name} must be a whole number from 0; it is '{ranks[name]}'; {hint}"
            )
    if "LOCAL_RANK" in ranks and (missing := [name for name in _RANKS if name not in ranks]):
        raise ConfigError(
            f"the environment variable LOCAL_RANK={ranks['LOCAL_RANK']} says that this is one of several processes, "
            f"but {', '.join(missing)} is not set; {hint}"
        )


@contextmanager
def accelerate_variables_hidden() -> Iterator[None]:
    """Without accelerate's own variables, which take precedence over its arguments; they are back afterwards.

    ``ACCELERATE_GRADIENT_ACCUMULATION_STEPS`` would divide losses, ``ACCELERATE_MIXED_PRECISION`` change the precision,
    ``ACCELERATE_DYNAMO_BACKEND`` compile the network.
    """
    hidden = {k: v for k, v in os.environ.items() if k.startswith(_ACCELERATE) and k not in _ON_SCREEN}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def recorded_variables() -> dict[str, str]:
    """The variables in the environment that could change a result, sorted by name; for ``environment.json``."""
    return {k: v for k, v in sorted(os.environ.items()) if k.startswith(_RECORDED) or k in _RECORDED_NAMES}
