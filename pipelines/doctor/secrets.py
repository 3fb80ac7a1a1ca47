"""Passwords and tokens kept out of what others say: their messages may quote a part of an address."""

import os
import re
from urllib.parse import parse_qsl, unquote, urlsplit

from pipelines.tracking.redact import redact

_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_NAME = re.compile(r"token|secret|password|passwd|pwd|sig|key", re.I)


def cleaned(text: str, address: str) -> str:
    """A message about `address` without the secrets that the address and the environment hold.

    >>> cleaned("login of me with p@ss (p%40ss) failed", "postgresql://me:p%40ss@db/mlflow")
    'login of me with *** (***) failed'
    """
    secrets = [os.environ.get(name) for name in _VARIABLES]
    if "://" in address:
        parts = urlsplit(address)
        secrets += [parts.password, unquote(parts.password or "")]
        secrets += [value for name, value in parse_qsl(parts.query) if _NAME.search(name)]
    for secret in sorted({each for each in secrets if each and len(each) > 2}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return redact(text)
