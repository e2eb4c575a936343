"""``python -m bench.launch.forkserver SOCKET_FD PARENT_PID``: a fork server. With ``rank ...``, a rank that it
spawned."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback

from bench.launch.channel import Channel
from bench.launch.forkserver.server import serve
from bench.launch.forkserver.start import spawned_rank
from bench.launch.prctl import adopt_orphans, die_with_parent


def main(arguments: list[str]) -> None:
    if arguments[0] == "rank":
        spawned_rank(arguments[1:])
        return
    die_with_parent(int(arguments[1]))
    adopt_orphans()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        serve(Channel(socket.socket(fileno=int(arguments[0]))))
    except (BrokenPipeError, ConnectionResetError):
        return
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # else libraries that are taken down have the last word, which the parent quotes


if __name__ == "__main__":
    main(sys.argv[1:])
