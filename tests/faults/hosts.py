"""Hosts of their own for workers: a network that can break, a name, and lock files that nobody shares."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from tests.faults.fleet import Fleet

NAMED = """hostname "$0" && exec "$@" """


class Hosts:
    """Two hosts in network namespaces; where those cannot be made, two that share our network.

    Attributes:
        address: where this machine is for them.
        networks: whether they have networks of their own.
    """

    def __init__(self) -> None:
        self.names = [f"ag{os.getpid()}{letter}" for letter in "ab"]
        self._bridge = f"ag{os.getpid()}"
        self.networks = self._made()
        self.address = self._place(1) if self.networks else "127.0.0.1"

    def _place(self, number: int) -> str:
        return f"10.{77 + os.getpid() % 100}.{os.getpid() // 100 % 250}.{number}"

    def _made(self) -> bool:
        if shutil.which("ip") is None or os.geteuid() != 0:
            return False
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip(f"link add {self._bridge} type bridge")
            _ip(f"addr add {self._place(1)}/24 dev {self._bridge}")
            _ip(f"link set {self._bridge} up")
            for number, name in enumerate(self.names, 2):
                _ip(f"netns add {name}")
                _ip(f"link add {name} type veth peer name eth0 netns {name}")
                _ip(f"link set {name} master {self._bridge} up")
                _ip(f"-n {name} addr add {self._place(number)}/24 dev eth0")
                _ip(f"-n {name} link set eth0 up")
            return True
        self.close()
        return False

    def break_network(self, number: int) -> None:
        """Cut a host off: nothing comes or goes, and nobody is told."""
        if self.networks:
            _ip(f"link set {self.names[number]} down")

    def mend_network(self, number: int) -> None:
        """Connect it again."""
        if self.networks:
            _ip(f"link set {self.names[number]} up")

    def words(self, number: int) -> list[str]:
        """Return what to put before a command, so that it runs on a host."""
        if not self.networks:
            return ["env"]
        name = self.names[number]
        return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", NAMED, name]

    def close(self) -> None:
        """Take them away."""
        for words in [*(f"netns del {name}" for name in self.names), f"link del {self._bridge}"]:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip(words)


@contextlib.contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Give two hosts for a while."""
    hosts = Hosts()
    try:
        yield hosts
    finally:
        hosts.close()


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


class Spread(Fleet):
    """A fleet whose workers are spread over two hosts, each a program of its own."""

    hosts: Hosts

    def _start(self, **job: object) -> int:
        number = next(self._numbers)
        host = number % 2
        mine = dataclasses.replace(self._job, number=number, **job)  # type: ignore[arg-type]
        module = ["-m", "tests.faults.mutants", "tests.faults.fleet"]
        argument = json.dumps(dataclasses.asdict(mine))
        words = [*self.hosts.words(host), sys.executable, *module, argument]
        locks = f"{mine.folder}/host-{host}"
        return os.posix_spawnp(words[0], words, {**os.environ, "AGENTGUARD_RUNTIME_DIR": locks})
