"""Recipes and command lines become validated configurations; what is wrong is refused with its place."""

import math
import types
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.options import as_recipe, parse
from pipelines.ranges import check_numbers
from pmlm_core.errors import ConfigError


@dataclass(frozen=True)
class Example:
    """A configuration with a field of each kind that stages use."""

    positional: ClassVar[str] = "texts"

    inputs: list[str] = field(default_factory=list)
    """Files."""
    texts: list[str] = field(default_factory=list)
    """Texts."""
    kind: Literal["unigram", "bpe"] = "unigram"
    """Kind."""
    max_length: int = 512
    """Tokens."""
    learning_rate: float = 6e-4
    """Rate."""
    max_grad_norm: float | None = None
    """Clip."""
    name: str | None = None
    """Name."""
    strict: bool = False
    """Strict."""

    def validate(self) -> None:
        if self.max_length < 8:
            raise ConfigError("max_length must be at least 8")


def parse_example(*argv: str):
    return parse("example", Example, "An example.", argv, ("example", "other"))


def recipe(tmp_path, text: str) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


def test_defaults():
    assert parse_example().config == Example()


def test_every_kind_of_option_from_the_command_line():
    request = parse_example(
        "--inputs", "a.txt", "b c.txt", "--kind", "bpe", "--max_length=64", "--learning_rate", "1e-4", "--strict",
        "--max_grad_norm", "1", "--name", "123",
    )  # fmt: skip
    assert request.config == Example(
        inputs=["a.txt", "b c.txt"], kind="bpe", max_length=64, learning_rate=1e-4, strict=True, max_grad_norm=1.0,
        name="123",
    )  # fmt: skip


def test_bare_words_go_to_the_positional_field():
    assert parse_example("one [MASK] two", "--strict", "false", "three").config.texts == ["one [MASK] two", "three"]
    assert parse_example("one", "--texts", "two", "three", "--strict").config.texts == ["one", "two", "three"]


def test_command_line_wins_over_recipe_and_other_sections_are_left_alone(tmp_path):
    path = recipe(
        tmp_path, "other:\n  anything: 1\nexample:\n  max_length: 128\n  inputs: [x]\n  learning_rate: 1e-5\n"
    )
    config = parse_example("--config", path, "--max_length", "256").config
    assert (config.max_length, config.inputs, config.learning_rate) == (256, ["x"], 1e-5)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("exampel:\n  max_length: 1\n", r"unknown section 'exampel'; did you mean 'example'\? sections are named"),
        ("other:\n  a: 1\n", "has no section 'example'"),
        ("example:\n  max_lenght: 128\n", "did you mean 'max_length'"),
        ("example:\n  max_length: many\n", "max_length"),
        ("example:\n  kind: wordpiece\n", "kind"),
        ("example:\n  max_length: 4\n", "at least 8"),
        ("example: [1]\n", "must hold options"),
        ("- 1\n", "must hold sections"),
        ("example: {\n", "not valid YAML"),
    ],
)
def test_wrong_recipes_are_refused_with_place_and_reason(tmp_path, section, message):
    path = recipe(tmp_path, section)
    with pytest.raises(ConfigError, match=message) as caught:
        parse_example("--config", path)
    if "at least 8" not in message:
        assert path in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--max_lenght", "3"], "did you mean 'max_length'"),
        (["--max_length"], "needs a value"),
        (["--max_length", "3.5"], '--max_length must be a whole number.*, not "3.5"'),
        (["--kind", "wordpiece"], 'pmlm example: --kind must be one of .*, not "wordpiece"'),
        (["--kind", "Unigrm"], "not \"Unigrm\"; did you mean 'unigram'"),
        (["--config"], "needs the path of a recipe"),
        (["--config", "/nowhere.yaml"], "cannot be read"),
        (["--inputs", "a", "--inputs", "b"], "given twice; the values of a list follow one --inputs"),
        (["--max_length", "9", "--max_length=8"], "'--max_length' is given twice$"),
        (["--dry_run=false"], "takes no value"),
    ],
)
def test_wrong_command_lines_are_refused(argv, message):
    with pytest.raises(ConfigError, match=message):
        parse_example(*argv)


@dataclass(frozen=True)
class Demanding:
    """Options of which two must be given.

    Args:
        model: one.
        task: another.
        rate: a third.
    """

    model: str
    task: str
    rate: float | None = None


@dataclass(frozen=True)
class Flagged:
    """Nothing but options."""

    use_gpu: bool = False
    """A flag."""
    seed: int = 0
    """A number."""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--use-gpu", "yes"], "'yes' is not an option; --use-gpu is given bare, or as --use-gpu=true or --use-gpu=f"),
        (["--seed", "1", "yes"], "'yes' is not an option; options are written --name value"),
        (["yes"], "'yes' is not an option; options are written --name value"),
    ],
)
def test_a_word_that_no_option_takes(argv, message):
    with pytest.raises(ConfigError, match=message):
        parse("flagged", Flagged, "", argv, ["flagged"])


def test_what_must_be_given_may_be_in_the_recipe_or_on_the_command_line(tmp_path):
    path = recipe(tmp_path, "demanding:\n  model: m\n  rate: 2\n")
    given = ["--config", path, "--task", "t"]
    assert parse("demanding", Demanding, "", given, ["demanding"]).config == Demanding("m", "t", 2.0)
    with pytest.raises(ConfigError, match=r"^pmlm demanding needs --task \(all options"):
        parse("demanding", Demanding, "", ["--config", path], ["demanding"])


def test_one_value_is_a_list_of_one(tmp_path):
    assert parse_example("--inputs=a.jsonl").config.inputs == ["a.jsonl"]
    assert parse_example("--config", recipe(tmp_path, "example:\n  inputs: a.jsonl\n")).config.inputs == ["a.jsonl"]


@pytest.mark.parametrize("limits", [{"least": 0}, {"above": 0}, {"least": 0, "most": 1}, {"above": 0, "below": 1}])
def test_what_is_no_number_is_in_no_range(limits):
    with pytest.raises(ConfigError, match=r"learning_rate must be .*, not nan"):
        check_numbers(types.SimpleNamespace(learning_rate=math.nan), ["learning_rate"], **limits)
    check_numbers(types.SimpleNamespace(learning_rate=0.5), ["learning_rate"], **limits)


def test_actions():
    assert parse_example("--dry-run").action == parse_example("--dry_run=true").action == "dry_run"
    assert parse_example("--dry_run").action == "dry_run"
    assert parse_example("--print_config").action == "print_config"


@given(
    st.builds(
        Example,
        inputs=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])), max_size=3),
        max_length=st.integers(8, 10**6),
        learning_rate=st.floats(1e-9, 10),
        max_grad_norm=st.none() | st.floats(0.1, 10),
        name=st.none() | st.from_regex(r"[a-z][a-z0-9-]{3,20}", fullmatch=True).filter(lambda s: s != "null"),
        strict=st.booleans(),
    )
)
def test_printed_configuration_reads_back(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("recipe") / "r.yaml"
    path.write_text(as_recipe("example", config), encoding="utf-8")
    assert yaml.safe_load(path.read_text(encoding="utf-8")).keys() == {"example"}
    assert parse_example("--config", str(path)).config == config
