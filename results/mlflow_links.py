"""Addresses of MLflow's UI that show a sweep's cells, as charts and side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

WORKFLOW = "workflowType=machine_learning"
"""Else the UI puts menus for language models around every page."""


def tagged(sweep_id: str) -> str:
    """A sweep's name as its runs have it in a tag: without the characters that no filter of MLflow's takes."""
    return re.sub(r"['\\]", "", sweep_id)


def charts(experiment_id: str, sweep_id: str) -> str:
    """The address that draws all cells of a sweep: sorted by date it folds them into the parent, else not."""
    query = quote(f"tags.sweep = '{tagged(sweep_id)}' and tags.record LIKE '%'")
    order = quote("metrics.`step_time_s`")
    return (
        f"#/experiments/{experiment_id}/runs?searchFilter={query}&orderByKey={order}&orderByAsc=true"
        f"&compareRunsMode=CHART&{WORKFLOW}"
    )


def compared(experiment_id: str, run_ids: Sequence[str]) -> str:
    """The address that compares runs: params, metrics, parallel coordinates."""
    runs = quote('["' + '","'.join(run_ids) + '"]')
    experiments = quote(f'["{experiment_id}"]')
    return f"#/compare-runs?runs={runs}&experiments={experiments}&{WORKFLOW}"
