"""The network lab: puts the ranks of a launch into hosts of their own, behind links of known rate and delay.

    host 0: lab0 --\\
    host 1: lab0 ---  switch        each a network namespace; 10.77.0.0/16; nothing in the machine's own namespace
    host 2: lab0 --/

Without a delay, lab0 is a veth pair to a bridge, and a token bucket at either end bounds what a host sends and what it
receives. With one, lab0 is a TUN device and a process of ours the switch (``bench.network.relay``): many kernels have
no netem.

The namespaces have no names. The fork server holds them by descriptors, and a process that is forked inside one stays
there; so all are gone, links included, once the server has closed them or is dead and its ranks with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.network.link import INTERFACE, Link

CLONE_NEWNET = 0x40000000

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000

CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21

TUN = "/dev/net/tun"

STATUS = Path("/proc/self/status")

PACKET_S = 0.0001
"""How long a packet takes at most as the kernel hands it to a device, down to two packets of 1500 bytes."""

RELAYED_PACKET_S = 0.0005
"""The same for links with a delay, whose packets go through a process of ours."""

BUCKET_PACKETS = 2
"""How many packets a link may run ahead of its rate after a pause; with fewer it falls behind while it waits."""

QUEUE_S = 0.05
"""How long a packet may wait for its turn at a port before the switch drops it."""


class NetworkError(RuntimeError):
    """The lab cannot be made here; the message is one line that names the setting and what is needed."""


def obstacle(link: Link) -> str | None:
    """Why this process cannot make such a lab, as far as can be determined without trying; None if it may."""
    if not sys.platform.startswith("linux"):
        return f"network=lab needs Linux; this is {sys.platform}"
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        return f"network=lab needs {' and '.join(missing)}, from iproute2 (apt-get install iproute2)"
    capabilities = next(
        int(line.split()[1], 16) for line in STATUS.read_text().splitlines() if line.startswith("CapEff:")
    )
    if not (capabilities >> CAP_NET_ADMIN & 1 and capabilities >> CAP_SYS_ADMIN & 1):
        return "network=lab needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN), to make network namespaces"
    if link.delay_s and not os.access(TUN, os.R_OK | os.W_OK):
        return f"network.delay needs {TUN}, which cannot be opened here; valid: null"
    return None


class Lab:
    """The hosts of one launch. Close it to be rid of them; before that, end the processes in them."""

    def __init__(self, link: Link, hosts: int) -> None:
        """Raises NetworkError."""
        self._own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._spaces: list[int] = []
        self._devices: list[int] = []
        self._relay: subprocess.Popen[bytes] | None = None
        self.relay_fd: int | None = None
        """Readable once the relay has ended, which nothing survives; None where there is none."""
        try:
            for _ in range(hosts):
                self._spaces.append(self._new_space())
            if link.delay_s:
                self._connect_by_relay(link)
            else:
                self._connect_by_bridge(link)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise NetworkError(f"network=lab: a network namespace cannot be made here ({error})") from error
            raise

    @contextlib.contextmanager
    def inside(self, host: int) -> Iterator[str]:
        """The address of a host. What is forked or opened within the block belongs to it, and gloo uses its link.

        Only the calling thread moves.
        """
        before = os.environ.get("GLOO_SOCKET_IFNAME")
        with self._entered(self._spaces[host]):
            os.environ["GLOO_SOCKET_IFNAME"] = INTERFACE
            try:
                yield address(host)
            finally:
                if before is None:
                    del os.environ["GLOO_SOCKET_IFNAME"]
                else:
                    os.environ["GLOO_SOCKET_IFNAME"] = before

    def close(self) -> None:
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait()
        relay_fds = [] if self.relay_fd is None else [self.relay_fd]
        for fd in (*relay_fds, *self._devices, *self._spaces, self._own):
            os.close(fd)
        self._devices, self._spaces, self._relay, self.relay_fd = [], [], None, None

    def _new_space(self) -> int:
        _check(_libc.unshare(CLONE_NEWNET))
        try:
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            _check(_libc.setns(self._own, CLONE_NEWNET))

    @contextlib.contextmanager
    def _entered(self, space: int) -> Iterator[None]:
        _check(_libc.setns(space, CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(self._own, CLONE_NEWNET))

    def _connect_by_bridge(self, link: Link) -> None:
        switch = self._new_space()
        self._spaces.append(switch)
        hosts = self._spaces[:-1]
        links, shapes = ["link add bridge0 type bridge", "link set bridge0 up"], []
        for host, space in enumerate(hosts):
            place = f"/proc/{os.getpid()}/fd/{space}"
            links.append(f"link add port{host} type veth peer name {INTERFACE} netns {place}")
            links.append(f"link set port{host} master bridge0 up")
            links += _cut_packets(f"port{host}", link.bits_per_s)
            shapes += _shape(f"port{host}", link.bits_per_s, PACKET_S)
        with self._entered(switch):
            _batch("ip", links)
            _batch("tc", shapes)
        for host, space in enumerate(hosts):
            with self._entered(space):
                _batch("ip", [*_cut_packets(INTERFACE, link.bits_per_s), *_bring_up(host)])
                _batch("tc", _shape(INTERFACE, link.bits_per_s, PACKET_S))

    def _connect_by_relay(self, link: Link) -> None:
        for host, space in enumerate(self._spaces):
            with self._entered(space):
                self._devices.append(_open_tun())
                largest = _packet_bytes(link.bits_per_s, RELAYED_PACKET_S)
                _batch("ip", [f"link set {INTERFACE} mtu {largest}", *_bring_up(host)])
                _batch("tc", _shape(INTERFACE, link.bits_per_s, RELAYED_PACKET_S))
        program = Path(__file__).with_name("relay.py")
        settings = [os.getpid(), link.delay_s, link.bits_per_s or 0.0, *self._devices]
        self._relay = subprocess.Popen(
            [sys.executable, "-I", "-S", str(program), *map(str, settings)],
            pass_fds=self._devices,
            stdin=subprocess.DEVNULL,
        )
        self.relay_fd = os.pidfd_open(self._relay.pid)


_libc = ctypes.CDLL(None, use_errno=True)


def enter(space: int) -> None:
    """Moves this process to the lab's host whose network namespace ``space`` is open on, for good."""
    _check(_libc.setns(space, CLONE_NEWNET))
    os.close(space)
    os.environ["GLOO_SOCKET_IFNAME"] = INTERFACE


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def address(host: int) -> str:
    return f"10.77.{(host + 1) // 256}.{(host + 1) % 256}"


def _bring_up(host: int) -> list[str]:
    return ["link set lo up", f"addr add {address(host)}/16 dev {INTERFACE}", f"link set {INTERFACE} up"]


def _shape(device: str, rate: float | None, packet_s: float) -> list[str]:
    if rate is None:
        return []
    bucket = BUCKET_PACKETS * _packet_bytes(rate, packet_s)
    limit = bucket + round(rate / 8 * QUEUE_S)
    return [f"qdisc add dev {device} root tbf rate {round(rate)}bit burst {bucket} limit {limit}"]


def _cut_packets(device: str, rate: float | None) -> list[str]:
    """Else TCP hands over up to 64 KiB at once, and the bucket would have to hold as much."""
    return [] if rate is None else [f"link set {device} gso_max_size {_packet_bytes(rate, PACKET_S)}"]


def _packet_bytes(rate: float | None, packet_s: float) -> int:
    return 65000 if rate is None else min(65000, max(2 * 1514, round(rate / 8 * packet_s)))


def _open_tun() -> int:
    device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", INTERFACE.encode(), IFF_TUN | IFF_NO_PI))
    except OSError:
        os.close(device)
        raise
    return device


def _batch(tool: str, lines: list[str]) -> None:
    """Runs commands of ``ip`` or ``tc`` in the namespace that this thread is in.

    Not pyroute2 (0.9.7): its token bucket has 32-bit rates, at most 34 Gbit/s, and a burst in whole microseconds; and
    importing it takes the fork server 1 s of CPU time.
    """
    if not lines:
        return
    done = subprocess.run([tool, "-batch", "-"], input="\n".join(lines), capture_output=True, text=True, check=False)
    if done.returncode:
        errors = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise NetworkError(f"network=lab: {tool} failed ({errors[0]})")
