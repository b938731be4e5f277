"""Settings: YAML in and out, overrides, and every mistake at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tasktokens.config import Config, load_config, parse_config, to_yaml
from tasktokens.datasets.folder import FolderSource
from tasktokens.datasets.rooms import RoomsSource
from tasktokens.errors import ConfigError
from tasktokens.methods import HttMethod, MtlMethod

SHIPPED = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


def test_the_defaults_are_a_valid_configuration_that_survives_yaml(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(to_yaml(Config()))
    assert load_config(tmp_path / "c.yaml") == Config() == load_config()


def test_any_settings_survive_yaml(tmp_path: Path) -> None:
    config = parse_config(
        {
            "seed": 7,
            "data": {"root": "some/where", "size": [64, 80], "labels": "0.25", "augmentation": {"scale": [0.5, 2]}},
            "tasks": {"semseg": {"weight": 0.1}, "depth": {}},
            "model": {"variant": "paper", "weights": "w.safetensors", "width": 32},
            "method": {"name": "mtl", "steps": 3},
            "optim": {"lr": 1.25e-5, "name": "adam"},
            "run": {"dir": "runs/x y", "threads": 2, "evaluate": None},
        }
    )
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "c.yaml") == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_configuration_loads(path: Path) -> None:
    load_config(path)


def test_there_are_shipped_configurations() -> None:
    assert SHIPPED


def test_overrides_beat_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("seed: 3\noptim: {lr: 0.5, batch_size: 2}\nrun: {dir: here}\n")
    config = load_config(
        tmp_path / "c.yaml", ["optim.lr=1e-3", "model.variant=paper", "run.evaluate=null", "run.dir=there"]
    )
    assert (config.seed, config.optim.lr, config.optim.batch_size) == (3, 1e-3, 2)
    assert (config.model.variant, config.run.evaluate, config.run.dir) == ("paper", None, Path("there"))


def test_the_last_of_two_overrides_counts() -> None:
    assert load_config(overrides=["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize("override", ["data.labels=0.3", "data.labels=3e-1", "data.labels='0.3'", "data.labels=.3"])
def test_a_fraction_of_labels_needs_no_quotes(override: str) -> None:
    assert float(load_config(overrides=[override]).data.labels) == 0.3


def test_the_kind_of_data_and_method_may_be_left_out() -> None:
    assert isinstance(parse_config({}).data, RoomsSource)
    assert isinstance(parse_config({"data": {"train": 5}}).data, RoomsSource)
    assert isinstance(parse_config({"data": {"root": "x"}}).data, FolderSource)
    assert isinstance(load_config(overrides=["data.root=x"]).data, FolderSource)
    assert isinstance(parse_config({"method": {"stage2_steps": 0}}).method, HttMethod)
    assert isinstance(parse_config({"method": {"name": "mtl"}}).method, MtlMethod)


def test_every_mistake_is_named_at_once_with_its_key_and_where() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(
            {
                "sed": 1,
                "optim": {"lr": -1, "bach_size": 3},
                "data": {"root": "x", "augmentation": {"flop": True}, "holdout": 2},
                "tasks": {"semseg": {"wieght": 1}},
                "run": {"keep": "many"},
            },
            "my.yaml",
        )
    message = str(caught.value)
    assert message.startswith("my.yaml: ")
    for part in (
        "'sed' (did you mean 'seed'?)", "'optim.lr'", "greater than 0", "found -1",
        "'optim.bach_size' (did you mean 'batch_size'?)", "'data.augmentation.flop' (did you mean 'flip'?)",
        "'data.holdout'", "'tasks.semseg.wieght' (did you mean 'weight'?)", "'run.keep'", "found 'many'",
    ):  # fmt: skip
        assert part in message, part
    assert "\n" not in message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": {"name": "hhtt"}}, r"'method' has no 'hhtt' \(did you mean 'htt'\?\).*htt, jtr, .*mtl"),
        ({"data": {"kind": "foldr"}}, r"'data' has no 'foldr' \(did you mean 'folder'\?\).*folder, .*nyud"),
        ({"method": {"name": "mtl", "stage1_steps": 3}}, "unknown key 'method.stage1_steps'"),
        ({"method": {"name": "mtl", "step": 3}}, "did you mean 'steps'"),
        ({"method": {"name": "htt", "stage1_steps": 0, "stage2_steps": 0}}, "'method.stage2_steps'.*nothing to train"),
        ({"model": {"variant": "papr"}}, "'model.variant'.*'htt'"),
        ({"model": 3}, "'model'"),
        ({"optim": {"batch_size": float("inf")}}, "'optim.batch_size'.*whole number.*found inf"),
        ({"optim": {"batch_size": 1.5}}, "'optim.batch_size'.*whole number.*found 1.5"),
        ({"optim": {"batch_size": True}}, "'optim.batch_size'.*whole number.*found True"),
        ({"optim": {"batch_size": "all"}}, "'optim.batch_size'.*whole number.*found 'all'"),
        ({"tasks": ["semseg"]}, "'tasks'"),
        ({"data": {"size": [0, 32]}}, "'data.size.0'"),
        ({"data": {"size": [32]}}, "'data.size"),
        ({"data": {"augmentation": {"scale": [0, 1]}}}, "scale"),
        ({"data": {"augmentation": {"scale": [2, 1]}}}, "scale"),
        ({"data": {"augmentation": {"scale": [-1, 1]}}}, "scale"),
        ({"data": {"augmentation": {"late_scale": [2, 1]}}}, "'data.augmentation.late_scale'.*least <= most"),
        ({"data": {"augmentation": {"late_from": 1.5}}}, "'data.augmentation.late_from'"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_with_what_would_be_right(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(values)


@pytest.mark.parametrize("override", ["seed", "=3", "optim.lr"])
def test_an_override_must_be_key_and_value(override: str) -> None:
    with pytest.raises(ConfigError, match="key=value"):
        load_config(overrides=[override])


def test_an_override_that_is_no_yaml_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data.size"):
        load_config(overrides=["data.size=[32, "])


@pytest.mark.parametrize(
    ("content", "message"),
    [("- 1\n- 2\n", "found a list"), ("a: [1\n", "read as YAML"), ("seed: 1\n\tb: 2", "read as YAML")],
)
def test_a_file_that_is_no_mapping_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "c.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert load_config(tmp_path / "c.yaml") == Config()


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"seed: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    with pytest.raises(ConfigError, match="read as YAML"):
        load_config(tmp_path / "c.yaml")
    assert not (tmp_path / "made").exists()


def test_settings_do_not_change_after_checking() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().optim.lr = 3.0  # type: ignore[misc]


def test_mistakes_inside_one_of_several_parts_are_named_as_typed() -> None:
    part = {"name": "a", "source": {"kind": "nyud", "rot": "x"}, "split": {}}
    with pytest.raises(ConfigError, match=r"'data\.parts\.0\.source\.rot' \(did you mean 'root'") as error:
        parse_config({"data": {"kind": "concat", "parts": [part]}})
    assert "'data.parts.0.split' (did you mean 'splits'" in str(error.value)


# -- paths and numbers of YAML -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    ["20241128", "no", "on", "true", "True", "1e-3", "1.50", "007", "0x10", "+5", "2024-11-28", "12:30", "1_000"],
)
@pytest.mark.parametrize("key", ["run.dir", "data.root", "model.weights"])
def test_a_path_is_the_text_that_was_typed(key: str, text: str, tmp_path: Path) -> None:
    config = load_config(overrides=[f"{key}={text}"])
    section, name = key.split(".")
    assert getattr(getattr(config, section), name) == Path(text)
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "c.yaml") == config


@pytest.mark.parametrize(
    ("text", "path"), [("20241128", "20241128"), ("no", "no"), ("true", "true"), ("'1e-3'", "1e-3")]
)
def test_a_path_in_a_file_may_look_like_a_number(text: str, path: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"run: {{dir: {text}}}\n")
    assert load_config(tmp_path / "c.yaml").run.dir == Path(path)


def test_a_path_whose_text_is_lost_must_be_quoted(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("run: {dir: 1.50}\n")
    with pytest.raises(ConfigError, match=r"'run\.dir': .*must be in quotes"):
        load_config(tmp_path / "c.yaml")
    assert load_config(overrides=["model.weights=null"]).model.weights is None


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.e-3", ".001", "+0.001", "0.1e-2"])
def test_numbers_are_numbers_in_files_and_overrides(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"optim: {{lr: {text}}}\n")
    assert load_config(tmp_path / "c.yaml").optim.lr == load_config(overrides=[f"optim.lr={text}"]).optim.lr == 1e-3


def test_an_override_that_begins_with_a_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'seed=010'.*write 10, or '010' in quotes"):
        load_config(overrides=["seed=010"])


# -- settings of earlier versions --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "off", ["geometry: false", "focal: 0.9", "focal: 0.81", "strong: {cutmix: 0.0}", "strong: {cutmix: 0}"]
)
def test_a_removed_setting_that_was_off_is_left_out(off: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"method: {{name: htt, stage1_steps: 7, {off}}}")
    config = load_config(tmp_path / "config.yaml")
    assert config == load_config(None, ["method.name=htt", "method.stage1_steps=7"])
    assert not any(word in to_yaml(config) for word in ("cutmix", "geometry", "focal"))


@pytest.mark.parametrize(
    ("on", "says"),
    [
        (
            "method.geometry=true",
            r"'method\.geometry' is True, but the geometric check was removed after .*lab-log",
        ),
        (
            "method.strong.cutmix=0.5",
            r"'method\.strong\.cutmix' is 0\.5, but patches of other images was removed after",
        ),
    ],
)
def test_a_removed_setting_that_was_on_is_refused_by_a_sentence(on: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(None, ["method.name=htt", on])
