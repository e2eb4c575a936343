"""The two kinds of process: the engine in a rank, and a server in addition to the ranks."""

from __future__ import annotations

from bench.engines.base import Engine, ServerContext
from bench.engines.parameter_server.server import Server
from bench.engines.parameter_server.worker import Worker
from bench.engines.spec import EngineSpec
from results.launches import ServerCounts


def create() -> Engine:
    return Worker()


def serve(spec: EngineSpec, context: ServerContext) -> ServerCounts:
    """One server, until all workers have left; returns what it counted."""
    return Server(spec, context).run()
