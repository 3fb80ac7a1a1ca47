"""A host name that leads nowhere: starting a server there or mending rights would not help."""

import re

# As Python's resolver, curl, and the drivers of databases say it.
_SAID = re.compile(
    r"name or service not known|temporary failure in name resolution|nodename nor servname|no address associated with"
    r"|name resolution|could ?n[o']t resolve|could not translate host name|unknown (?:mysql server )?host",
    re.I,
)
REMEDY = (
    "The name leads to no address here: look at its spelling, and whether this machine's DNS, /etc/hosts or VPN know "
    "it; where they do not, give the address in numbers"
)


def remedy(failure: str, otherwise: str) -> str:
    """What to do about a failure to reach something: `otherwise`, unless its name could not be resolved.

    >>> remedy("[Errno -2] Name or service not known", "Start it.") == REMEDY + "."
    True
    >>> remedy("Connection refused", "Start it.")
    'Start it.'
    """
    return f"{REMEDY}." if _SAID.search(failure) else otherwise
