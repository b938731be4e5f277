"""Settings: pydantic models, YAML in and out, ``key=value`` overrides, errors that name every wrong setting at once."""

from tasktokens.config.base import Chosen, MethodSettings, Seed, Settings, Side
from tasktokens.config.data import Augmentation, DataSettings
from tasktokens.config.load import as_config, load_config, load_run_config, parse_config, read_yaml, to_yaml
from tasktokens.config.settings import Config, ModelSettings, OptimSettings, RunSettings, TaskOptions

__all__ = [
    "Augmentation", "Chosen", "Config", "DataSettings", "MethodSettings", "ModelSettings", "OptimSettings",
    "RunSettings", "Seed", "Settings", "Side", "TaskOptions", "as_config",
    "load_config", "load_run_config", "parse_config", "read_yaml", "to_yaml",
]  # fmt: skip
