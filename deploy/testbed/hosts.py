"""Three hosts on this machine, for trying `ray up` and lost nodes for real: network namespaces with an sshd each.

    sudo python deploy/testbed/hosts.py up      bridge 10.231.0.1, hosts pmlm-1 … pmlm-3 at 10.231.0.11 … 13
    sudo python deploy/testbed/hosts.py kill pmlm-3
    sudo python deploy/testbed/hosts.py cut pmlm-2 pmlm-3     no packet passes between the two; heal undoes it
    sudo python deploy/testbed/hosts.py down

A host has processes, host name, home, /tmp/ray, /dev/shm and network of its own; it shares the file system with this
machine, so that ROOT/shared stands for NFS and the Python environment is the one that runs this script. Under ROOT/runs
each has a disk of its own, that of pmlm-1 being this machine's. Needs root on Linux, and Debian's packages
openssh-server, rsync and iproute2.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path("/tmp/pmlm-testbed")
BRIDGE, NET = "pmlm-br", "10.231.0"
HOSTS = {f"pmlm-{i}": f"{NET}.{10 + i}" for i in (1, 2, 3)}
NEEDED = {
    "ip": "iproute2",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "rsync": "rsync",
    "unshare": "util-linux",
}

SSHD = """Port 22
ListenAddress {address}
HostKey {root}/host_key
AuthorizedKeysFile {root}/key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
"""

# `ray up` and `ray job` go through login shells, for which /etc/profile sets PATH anew.
PROFILE = "export PATH={path} PYTHONPATH={modules} RAY_AUTH_MODE=token GLOO_SOCKET_IFNAME=eth0\n"

# Its own PID namespace is a must: `ray stop` kills every Ray process it can see.
BOOT = """set -e
mount --make-rprivate /
hostname {name}
mkdir -p /tmp/ray
mount --bind {own}/ray /tmp/ray
mount --bind {own}/hosts /etc/hosts
{keep_python}
mount --rbind {own}/home {home}
mount -t tmpfs -o size=1g tmpfs /dev/shm
{own_disk}
mkdir -p /run/sshd
exec {sshd} -D -e -f {own}/sshd_config
"""


def run(*words: str, check: bool = True) -> None:
    subprocess.run(words, check=check, stdout=subprocess.DEVNULL, stderr=None if check else subprocess.DEVNULL)


def refuse_what_cannot_work() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise SystemExit("error: the test bed makes network namespaces, which needs root on Linux")
    if missing := [package for program, package in NEEDED.items() if shutil.which(program, path=search_path()) is None]:
        raise SystemExit(f"error: install {' '.join(sorted(set(missing)))} first (apt-get install)")


def up() -> None:
    """Start the hosts and wait until each answers."""
    refuse_what_cannot_work()
    down()
    ROOT.mkdir(mode=0o700)
    for folder in ("shared", "runs"):
        (ROOT / folder).mkdir()
    for key in ("key", "host_key"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ROOT / key))
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "addr", "add", f"{NET}.1/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    for name in HOSTS:
        start(name)
    for name in HOSTS:
        wait_for(name)
    print(f"hosts: {', '.join(f'{name} {address}' for name, address in HOSTS.items())}; shared folder: {ROOT}/shared")
    print("next: RAY_UP_enable_autoscaler_v2=0 ray up --yes deploy/testbed/cluster.yaml")


def start(name: str) -> None:
    """Give a host its network and its processes."""
    address, own, home = HOSTS[name], ROOT / name, Path.home()
    for part in ("ray", "home/.ray", "home/.ssh"):
        (own / part).mkdir(parents=True, exist_ok=True)
    for shell in (".profile", ".bashrc"):
        modules = os.environ.get("PYTHONPATH", "")
        (own / "home" / shell).write_text(PROFILE.format(path=search_path(), modules=modules))
    (own / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in HOSTS.items()))
    sshd = shutil.which("sshd", path=search_path())
    assert sshd is not None
    (own / "sshd_config").write_text(SSHD.format(address=address, root=ROOT))
    token = home / ".ray" / "auth_token"
    if token.exists():
        shutil.copy(token, own / "home" / ".ray" / "auth_token")
    near, far = f"v{name}", f"p{name}"
    run("ip", "netns", "add", name)
    run("ip", "link", "add", near, "type", "veth", "peer", "name", far)
    run("ip", "link", "set", near, "master", BRIDGE, "up")
    run("ip", "link", "set", far, "netns", name)
    inside = ("ip", "netns", "exec", name, "ip")
    run(*inside, "link", "set", far, "name", "eth0")
    run(*inside, "addr", "add", f"{address}/24", "dev", "eth0")
    run(*inside, "link", "set", "eth0", "up")
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "route", "add", "default", "via", f"{NET}.1")
    disk = "" if name == "pmlm-1" else f"mount -t tmpfs tmpfs {ROOT}/runs"
    boot = BOOT.format(name=name, own=own, home=home, sshd=sshd, keep_python=_keep_python(own, home), own_disk=disk)
    with open(own / "sshd.log", "ab") as log:
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, "unshare", "--mount", "--pid", "--fork", "--uts", "--mount-proc",
             "--kill-child", "bash", "-c", boot],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    (own / "pid").write_text(str(process.pid))


def _keep_python(own: Path, home: Path) -> str:
    """The Python installation, and the project, where they lie below the home that the host gets its own of."""
    parts = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), Path(__file__).resolve().parents[2]}
    kept = [part for part in parts if part.is_relative_to(home.resolve())]
    lines = []
    for part in sorted(kept):
        inner = own / "home" / part.relative_to(home.resolve())
        lines += [f"mkdir -p {inner}", f"mount --bind {part} {inner}"]
    return "\n".join(lines)


def search_path() -> str:
    """Where the hosts look for programs: first in the environment that runs this script."""
    return f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def wait_for(name: str, seconds: float = 20) -> None:
    """Wait until the host's sshd answers."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            socket.create_connection((HOSTS[name], 22), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"error: {name} does not answer; see {ROOT}/{name}/sshd.log")


def kill(name: str) -> None:
    """End all processes of a host at once, as a lost machine does; its address goes silent too."""
    pid = int((ROOT / name / "pid").read_text())
    command = Path(f"/proc/{pid}/cmdline")
    # The number may have gone to another process since.
    if command.exists() and f"hostname {name}" in command.read_text():
        # `ip netns exec` becomes unshare, whose child is the host's first process: with it the kernel ends all others.
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
    run("ip", "link", "set", f"v{name}", "down", check=False)


def cut(one: str, other: str) -> None:
    """Let no packet pass between two hosts any more: connections hang, as with a pulled cable, and are not refused."""
    for here, there in ((one, other), (other, one)):
        _neighbour(here, "replace", HOSTS[there], "lladdr", "02:00:00:00:00:01", "nud", "permanent")  # nobody's address


def heal(one: str, other: str) -> None:
    """Undo `cut`."""
    for here, there in ((one, other), (other, one)):
        _neighbour(here, "del", HOSTS[there])


def _neighbour(host: str, action: str, address: str, *more: str) -> None:
    run("ip", "netns", "exec", host, "ip", "neigh", action, address, *more, "dev", "eth0")


def down() -> None:
    """Remove whatever there is of the hosts."""
    for name in HOSTS:
        if (ROOT / name / "pid").exists():
            with contextlib.suppress(OSError, ValueError):  # it is gone already
                kill(name)
        run("ip", "netns", "del", name, check=False)
        run("ip", "link", "del", f"v{name}", check=False)
    run("ip", "link", "del", BRIDGE, check=False)
    if ROOT.exists() and (ROOT.is_symlink() or ROOT.stat().st_uid != os.geteuid()):
        raise SystemExit(f"error: {ROOT} is somebody else's; remove it first")
    shutil.rmtree(ROOT, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["up", "kill", "cut", "heal", "down"])
    parser.add_argument("host", nargs="*", help="one for kill, two for cut and heal")
    given = parser.parse_args()
    wanted = {"kill": 1, "cut": 2, "heal": 2}.get(given.action, 0)
    if len(set(given.host)) != wanted or len(given.host) != wanted or not set(given.host) <= set(HOSTS):
        parser.error(f"{given.action} takes {wanted} of {', '.join(HOSTS)}")
    {"up": up, "kill": kill, "cut": cut, "heal": heal, "down": down}[given.action](*given.host)


if __name__ == "__main__":
    main()
