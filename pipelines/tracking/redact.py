"""Keep secrets out of what is shown and stored: user and password in an address, tokens in its query."""

import re
from collections.abc import Mapping
from typing import Any

# A password may hold "/", "?" and "#" as it is, which databases' drivers take, and "@", which they do not: what ends in
# the last "@" is taken for one. Only of http there are addresses HOST:PORT/PATH@MORE, which have none.
_USER = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)"
    r"(?:(?:(?<=http://)|(?<=https://))(?:[^/\s?#]*|[^/\s?#:@]*:(?!\d+(?:[/?#,;)]|$))[^\s@\"']*)"
    r"|(?<!http://)(?<!https://)(?:[^/\s?#:@\"']*:[^\s\"']*|[^/\s?#]*))@"
)
_QUERY = re.compile(
    r"(?P<name>[?&][^=&\s]*(?:token|secret|password|passwd|pwd|signature|sig|key)[^=&\s]*=)[^&\s]+", re.I
)
_SECRET_NAME = re.compile(r"(?:^|[._-])(?:token|secret|password|passwd|credentials?|api_?key|access_?key)$", re.I)


def redact(text: str) -> str:
    """Take user, password and tokens out of every address in `text`.

    >>> redact("postgresql://me:hush@db.example:5432/mlflow")
    'postgresql://***@db.example:5432/mlflow'
    >>> redact("mysql://me:20/24#1@db/mlflow"), redact("http://host:5000/model@2")
    ('mysql://***@db/mlflow', 'http://host:5000/model@2')
    >>> redact("https://host/blocks?token=hush&part=3")
    'https://host/blocks?token=***&part=3'
    """
    return _QUERY.sub(r"\g<name>***", _USER.sub(r"\g<scheme>***@", text))


def in_brief(text: object, most: int = 300) -> str:
    """A message in one line without secrets; of a long one the middle is left out, for its end names the cause.

    >>> in_brief("it failed  because of a and b, since c was away", most=30)
    'it failed ... c was away'
    """
    line = redact(" ".join(str(text).split()))
    if len(line) <= most:
        return line
    # Half of it each; whole words, unless one is longer than a half.
    begin, end = line[: most // 2].rpartition(" ")[0] or line[: most // 2], line[-(most // 2) :]
    return f"{begin} ... {end.partition(' ')[2] or end}"


def redacted(value: Any) -> Any:
    """A configuration as it may be written to a file: the same values, every address in them redacted.

    >>> redacted({"tracking_uri": "postgresql://me:hush@db/mlflow", "seeds": [1, 2], "name": None})
    {'tracking_uri': 'postgresql://***@db/mlflow', 'seeds': [1, 2], 'name': None}
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {name: redacted(inner) for name, inner in value.items()}
    return [redacted(inner) for inner in value] if isinstance(value, list | tuple) else value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Make a nested configuration flat text, as MLflow's parameters want it, with secrets taken out.

    >>> flatten({"model": {"layers": 2}, "inputs": ["a", "b"], "api_key": "hush"})
    {'model.layers': '2', 'inputs': "['a', 'b']", 'api_key': '***'}
    """
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        elif _SECRET_NAME.search(str(name)) and value is not None:
            flat[f"{prefix}{name}"] = "***"
        else:
            flat[f"{prefix}{name}"] = redact(str(value))
    return flat
