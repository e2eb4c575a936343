"""The engine that docs/how-to/add_an_engine.md leads to: one all-reduce for each gradient."""

from bench.engines.spec import Capabilities, EngineSpec

CAPABILITIES = Capabilities(
    stages={0: "an all-reduce of each gradient"},
    settings=("accumulate", "clip_norm"),
    precisions=("fp32", "amp_bf16"),
    why_not={"bucket_mb": "it reduces gradients one by one"},
)
PRELOAD = ()


def check_settings(spec: EngineSpec) -> None:
    """Rejects nothing more."""
