"""Names, addresses and connections, as one node sees them."""

import contextlib
import fcntl
import socket
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

_GET_ADDRESS = 0x8915  # SIOCGIFADDR of Linux


def addresses_of(name: str) -> list[str]:
    """Addresses that a host name resolves to here, none if it does not."""
    try:
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, None)})
    except OSError:
        return []


def addresses_of_all(names: list[str]) -> dict[str, list[str]]:
    """`addresses_of` every name, at the same time: one that cannot be resolved may take seconds."""
    with ThreadPoolExecutor(16) as pool:
        return dict(zip(names, pool.map(addresses_of, names), strict=True))


def interfaces() -> dict[str, str]:
    """IPv4 addresses of this machine's network interfaces, by name."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                packed = fcntl.ioctl(any_socket.fileno(), _GET_ADDRESS, struct.pack("256s", name.encode()[:15]))
                found[name] = socket.inet_ntoa(packed[20:24])
    return found


def listening() -> socket.socket:
    """A socket on a free port of all interfaces; the kernel takes connections for it, nobody has to accept them."""
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind(("", 0))
    server.listen(1024)
    return server


def connections(targets: Mapping[str, tuple[str, int]], timeout: float) -> dict[str, str | None]:
    """Connect to every target at the same time; gives each one's failure, or None."""

    def attempt(target: tuple[str, int]) -> str | None:
        try:
            socket.create_connection(target, timeout).close()
        except OSError as error:
            return error.strerror or str(error) or type(error).__name__
        return None

    with ThreadPoolExecutor(32) as pool:
        return dict(zip(targets, pool.map(attempt, targets.values()), strict=True))
