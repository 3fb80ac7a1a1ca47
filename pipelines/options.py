"""From a recipe and a command line to one validated, frozen configuration; nothing heavy is imported here.

A recipe is YAML with one section per command, so that one file describes a whole path from text to model. The command
line overrides it, option by option. Anything unknown, ill-typed or contradictory ends here, before a cluster starts.
"""

import dataclasses
import json
import types
import typing
from argparse import SUPPRESS, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from pipelines.option_errors import option_error
from pmlm_core.errors import ConfigError, near

set_parsing_settings(docstring_parse_attribute_docstrings=True)

_COMMON = """common options:
  --config RECIPE.yaml  read this command's section of a recipe; options on the command line win
  --print_config        print the resulting configuration as a recipe section and stop
  --dry_run             check everything, say what would run and what it would take, and stop"""


class _KeepEpilog(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Help with defaults and types, and the common options laid out as written."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked of a command: its configuration, whether to run it, and the recipe that was read."""

    config: Any
    action: str  # "run", "print_config" or "dry_run"
    recipe: str | None = None


def parser_for(command: str, config_class: type, summary: str) -> ArgumentParser:
    """Build the parser of `pmlm <command>` from the fields of its configuration class."""
    common = _COMMON if getattr(config_class, "dry_run", True) else _COMMON.rpartition("\n")[0]
    parser = ArgumentParser(prog=f"pmlm {command}", description=summary, epilog=common, exit_on_error=False)
    parser.formatter_class = _KeepEpilog
    parser.add_class_arguments(config_class, None, as_group=False)
    return parser


def print_help(command: str, config_class: type, summary: str) -> None:
    """Print the help of `pmlm <command>`: how values of lists are given, and which options there must be."""
    parser, kinds = parser_for(command, config_class, summary), _field_types(config_class)
    for action in parser._actions:
        if action.dest not in kinds:
            continue
        action.option_strings = [name for name in action.option_strings if not name.endswith("+")]
        if _is(kinds[action.dest], list):
            action.metavar = "VALUE [VALUE ...]"
        if action.dest in getattr(config_class, "needs", ()):
            action.required, action.default = True, SUPPRESS
    parser.print_help()


def parse(command: str, config_class: type, summary: str, argv: Sequence[str], commands: Sequence[str]) -> Request:
    """Read recipe and command line into a validated configuration.

    Raises:
        ConfigError: an option is unknown or has the wrong type, the recipe cannot be read, or options contradict.
    """
    fields = _field_types(config_class)
    recipe, action, rest = _take_common(argv)
    positional = getattr(config_class, "positional", None)
    given = _normalise(rest, fields, positional, command)
    parser = parser_for(command, config_class, summary)
    from_recipe = _recipe_arguments(recipe, command, fields, commands) if recipe else []
    if recipe:
        _alone(f"recipe {recipe}, section '{command}'", fields, from_recipe, parser.prog)
    namespace = _parse(parser, [*from_recipe, *given], f"pmlm {command}", fields)
    config = config_class(**{name: getattr(namespace, name) for name in fields})
    if hasattr(config, "validate"):
        config.validate()
    return Request(config, action, recipe)


def converted(where: str, config_class: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Some options of a configuration, checked and converted as a recipe's are; nothing is validated beside types.

    Args:
        where: for messages.

    Raises:
        ConfigError: a value has the wrong type.
    """
    kinds = _field_types(config_class)
    namespace = _alone(where, kinds, [_argument(name, value, kinds[name]) for name, value in values.items()], "pmlm")
    return {name: getattr(namespace, name) for name in values}


def sections(path: str, commands: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What a recipe holds: options by command, as they are written there.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"recipe {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} is not valid YAML: {error}") from None
    known = ", ".join(commands)
    if not isinstance(loaded, dict):
        raise ConfigError(f"recipe {path} must hold sections named after commands ({known})")
    for name, section in loaded.items():
        if name not in commands:
            hint = near(name, commands) or ";"
            raise ConfigError(
                f"recipe {path}: unknown section '{name}'{hint} sections are named after commands: {known}"
            )
        if not isinstance(section or {}, dict):
            raise ConfigError(f"recipe {path}: section '{name}' must hold options, one 'name: value' a line")
    return {name: section or {} for name, section in loaded.items()}


def section(path: str, command: str, config_class: type, commands: Sequence[str]) -> dict[str, Any]:
    """The options of one section of a recipe, converted; nothing is validated beside names and types.

    Raises:
        ConfigError: the recipe cannot be read, or an option is unknown or has the wrong type.
    """
    kinds = _field_types(config_class)
    arguments = _recipe_arguments(path, command, kinds, commands)
    namespace = _alone(f"recipe {path}, section '{command}'", kinds, arguments, "pmlm")
    return {name: getattr(namespace, name) for name in sections(path, commands)[command]}


def as_recipe(command: str, config: Any) -> str:
    """Write a configuration as the recipe section that `--config` reads back."""
    values = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return yaml.safe_dump({command: values}, sort_keys=False, allow_unicode=True)


def _alone(where: str, kinds: Mapping[str, Any], arguments: list[str], command: str) -> Any:
    """Parse some options for themselves: none is required beside them."""
    parser = ArgumentParser(prog=command, exit_on_error=False)
    for argument in arguments:
        name = argument[2:].partition("=")[0]
        parser.add_argument(f"--{name}", type=kinds[name])
    return _parse(parser, arguments, where, kinds)


def _parse(parser: ArgumentParser, arguments: list[str], where: str, kinds: Mapping[str, Any]) -> Any:
    try:
        return parser.parse_args(arguments)
    except ConfigError:
        raise
    except Exception as error:  # jsonargparse raises several kinds; all of them are the user's to mend
        raise option_error(where, error, kinds, parser.prog) from None


def _field_types(config_class: type) -> dict[str, Any]:
    hints = typing.get_type_hints(config_class)
    return {field.name: hints[field.name] for field in dataclasses.fields(config_class)}


def _is(annotation: Any, wanted: type) -> bool:
    """Whether `annotation` is `wanted`, or an optional or parametrised form of it."""
    if annotation is wanted or typing.get_origin(annotation) is wanted:
        return True
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_is(part, wanted) for part in typing.get_args(annotation) if part is not type(None))
    return False


def _take_common(argv: Sequence[str]) -> tuple[str | None, str, list[str]]:
    recipe, action, rest = None, "run", []
    tokens = iter(argv)
    for token in tokens:
        if token == "--":  # what follows is another command's
            rest += [token, *tokens]
            break
        name, _, value = token.partition("=")
        name = name.replace("-", "_").replace("__", "--", 1)
        if name == "--config":
            recipe = value or next(tokens, None)
            if not recipe:
                raise ConfigError(
                    "--config needs the path of a recipe, for example --config recipes/pretrain/demo.yaml"
                )
        elif name in ("--print_config", "--dry_run"):
            if value not in ("", "true"):
                raise ConfigError(f"{name} takes no value; leave it out to run")
            action = name[2:]
        else:
            rest.append(token)
    return recipe, action, rest


def _unknown(name: str, fields: dict[str, Any], where: str) -> ConfigError:
    hint = f"{near(name, fields)} (all options: pmlm {where.split()[-1]} --help)"
    return ConfigError(f"{where}: unknown option '{name}'{hint}")


def _normalise(argv: list[str], fields: dict[str, Any], positional: str | None, command: str) -> list[str]:
    """Rewrite `--inputs a b` and a bare `--strict` into the one form the parser reads, `--name=value`."""
    out: list[str] = []
    bare: list[str] = []
    seen: set[str] = set()
    position = 0
    while position < len(argv):
        token = argv[position]
        position += 1
        if token == "--" and positional is not None:
            bare += argv[position:]
            break
        if not token.startswith("--"):
            if positional in (None, "command"):
                raise _stray(token, argv[: position - 1], fields, positional, command)
            bare.append(token)
            continue
        name, equals, value = token[2:].partition("=")
        name = name.replace("-", "_")
        if name not in fields:
            raise _unknown(name, fields, f"pmlm {command}")
        kind = fields[name]
        if name in seen:
            hint = f"; the values of a list follow one --{name}" if _is(kind, list) else ""
            raise ConfigError(f"pmlm {command}: option '--{name}' is given twice{hint}")
        seen.add(name)
        if equals:
            out.append(f"--{name}={_as_list(value) if _is(kind, list) else value}")
        elif _is(kind, list):
            values = bare if name == positional else []
            while position < len(argv) and not argv[position].startswith("--"):
                values.append(argv[position])
                position += 1
            out.append(f"--{name}={json.dumps(values, ensure_ascii=False)}")
        elif _is(kind, bool) and (position == len(argv) or argv[position].lower() not in ("true", "false")):
            out.append(f"--{name}=true")
        elif position == len(argv):
            raise ConfigError(f"pmlm {command}: option '--{name}' needs a value")
        else:
            out.append(f"--{name}={argv[position]}")
            position += 1
    if bare:
        out.append(f"--{positional}={json.dumps(bare, ensure_ascii=False)}")
    return out


def _stray(word: str, before: list[str], fields: dict[str, Any], positional: str | None, command: str) -> ConfigError:
    """The error of a word that no option takes."""
    if positional is not None:
        return ConfigError(
            f"pmlm {command}: put -- before the command: pmlm {command} -- pretrain --config RECIPE.yaml ..."
        )
    hint, flag = "options are written --name value", before[-1].replace("-", "_") if before else ""
    if flag.startswith("__") and _is(fields.get(flag[2:]), bool):
        hint = f"{before[-1]} is given bare, or as {before[-1]}=true or {before[-1]}=false"
    return ConfigError(f"pmlm {command}: '{word}' is not an option; {hint}")


def _as_list(value: str) -> str:
    """One value given where a list is wanted is a list of one."""
    return value if value.startswith("[") or value == "null" else json.dumps([value], ensure_ascii=False)


def _recipe_arguments(path: str, command: str, fields: dict[str, Any], commands: Sequence[str]) -> list[str]:
    """Turn this command's section into arguments, so that recipe and command line pass the same checks."""
    found = sections(path, commands)
    if command not in found:
        raise ConfigError(f"recipe {path} has no section '{command}', only {', '.join(found)}")
    arguments = []
    for name, value in found[command].items():
        if name not in fields:
            raise _unknown(str(name), fields, f"recipe {path}, section {command}")
        arguments.append(_argument(name, value, fields[name]))
    return arguments


def _argument(name: str, value: Any, kind: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return f"--{name}={_as_list(text) if _is(kind, list) else text}"
