"""Imported by a fork server, it has the native engine of its ranks take the host for a GPU, which gloo cannot reach."""

import sys

from bench.engines.native import collectives

collectives.collectives = lambda context, backend: collectives.StagedCollectives(context)
assert "bench.engines.native.adapter" not in sys.modules, "too late: the engine has its collectives already"
