"""The scripts and manifests of the cluster tutorial: bash parses them, fields are where the schema has them, and their
commands are valid."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.checks import check_cluster
from bench.cli.overrides import check_mode, check_overrides, cluster_of
from bench.launch.cluster import env
from results.settings import Config
from tests.documents.markdown import ROOT

EXAMPLES = ROOT / "docs" / "tutorials" / "cluster"
SCRIPTS = sorted(EXAMPLES.glob("*.sbatch"))


def loaded(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / name).read_text())
    return document


def check_command(words: list[str]) -> None:
    assert words[:3] == ["python", "-m", "bench"]
    check_overrides(words[3:])
    check_mode(words[3:])
    cluster = cluster_of(words[3:])
    check_cluster(Config(cluster=cluster))
    assert cluster.kind == "env"


def check_pod(pod: dict[str, Any]) -> None:
    """What both kinds of job need of a pod: the command, the secret, its port, and enough shared memory."""
    (container,) = pod["containers"]
    check_command(container["command"])
    (secret,) = [entry for entry in container["env"] if entry["name"] == "BENCH_CLUSTER_SECRET"]
    assert "value" not in secret and set(secret["valueFrom"]["secretKeyRef"]) == {"name", "key"}
    assert [port["containerPort"] for port in container["ports"]] == [Config().cluster.port]
    mounts = {entry["mountPath"]: entry["name"] for entry in container["volumeMounts"]}
    volumes = {entry["name"]: entry for entry in pod["volumes"]}
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory" and mounts["/results"] in volumes


def test_a_jobset_has_an_indexed_pod_per_node_which_finds_its_number() -> None:
    jobset = loaded("jobset.yaml")
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"] == 2
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never" and spec["backoffLimit"] == 0
    check_pod(pod)
    variables = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"] if "value" in entry}
    assert env.place(variables | {"JOB_COMPLETION_INDEX": "1"}) == (1, spec["completions"])
    name = f"{jobset['metadata']['name']}-{job['name']}-0-0.{jobset['metadata']['name']}"  # of JobSet's DNS
    assert f"cluster.address={name}" in pod["containers"][0]["command"] and jobset["spec"]["network"]


def test_a_pytorchjob_runs_the_same_pod_as_master_and_worker() -> None:
    job = loaded("pytorchjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert set(replicas) == {"Master", "Worker"} and replicas["Master"]["replicas"] == 1
    for replica in replicas.values():
        assert replica["restartPolicy"] == "Never"
        check_pod(replica["template"]["spec"])
        assert [entry["name"] for entry in replica["template"]["spec"]["containers"]] == ["pytorch"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_batch_script_parses_and_asks_for_one_task_per_node(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    flags = dict(re.findall(r"(?m)^#SBATCH --([a-z-]+)=(.*)$", script.read_text()))
    assert flags["nodes"] == "2" and flags["ntasks-per-node"] == "1" and "%j" in flags["output"]
    (settings,) = re.findall(r"settings=\((-m .*)\)", script.read_text())
    kind = re.findall(r"cluster=(\w+)", script.read_text())[-1]
    check_overrides([*settings.split(), f"cluster={kind}"])
