"""Templates of requests on a real cluster, and against the services' own clients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cvl.testing import kube
from cvl.testing.cli_harness import Desk
from cvl.testing.docker_engine import Engine
from cvl.testing.kube_cluster import RealCluster
from cvl.testing.lambda_cloud import LambdaCloud, Settings
from cvl.testing.machine import possible
from cvl.testing.sagemaker import AwsCloud
from cvl.testing.sagemaker.cloud import missing
from cvl.tests import clouds, kubes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
RESTRICTED = """
spec:
  priorityClassName: PRIORITY
  securityContext: {runAsNonRoot: true, runAsUser: 1234, seccompProfile: {type: RuntimeDefault}}
  tolerations: [{key: spot, operator: Exists}]
  containers:
    - name: job
      resources: {limits: {cpu: 500m}}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""


def written(folder: Path, text: str) -> str:
    file = folder / "template.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.kube
@pytest.mark.docker
def test_a_pod_runs_as_its_template_says(real_cluster: RealCluster, tmp_path: Path) -> None:
    """As a namespace that enforces the `restricted` level wants it."""
    with kube.fresh_namespace(real_cluster) as name:
        real_cluster.kubectl("create", "priorityclass", name, "--value=-5")
        there = kubes.desk(tmp_path, real_cluster, name)
        file = written(tmp_path, RESTRICTED.replace("PRIORITY", name))
        done = there.sh("id -u; echo a >a; exit 3", "--pod-template", file)
        real_cluster.kubectl("delete", "priorityclass", name)
        assert (done.code, done.out) == (3, b"1234\n"), done.err
        assert there.result("a") == b"a\n"


@pytest.mark.kube
@pytest.mark.docker
def test_what_the_cluster_does_not_know_is_named(real_cluster: RealCluster, tmp_path: Path) -> None:
    with kube.fresh_namespace(real_cluster) as name:
        there = kubes.desk(tmp_path, real_cluster, name)
        file = written(tmp_path, "spec: {priorityClasName: low}")
        done = there.sh("true", "--pod-template", file)
        assert done.code == 125
        assert "spec.priorityClasName" in done.err
        assert not kubes.ours(real_cluster, there.runs()[0])


@pytest.mark.docker
def test_sagemaker_is_sent_what_a_template_adds(tmp_path: Path, shared_engine: Engine) -> None:
    if why := missing():
        pytest.skip(why)
    with AwsCloud(engine=shared_engine) as cloud:
        there = clouds.desk(tmp_path, cloud, shared_engine.image, engine=shared_engine)
        vpc = {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}
        more = {"VpcConfig": vpc, "EnableNetworkIsolation": True}
        file = written(tmp_path, json.dumps(more))
        done = there.sh("exit 3", "--request-template", file)
        assert done.code == 3, done.err
        [sent] = [each.body for each in cloud.wire.log if each.operation == "CreateTrainingJob"]
        assert sent == {**sent, **more}
        for text in ('{"VpcConfg": {}}', '{"EnableNetworkIsolation": "maybe"}'):
            wrong = there.sh("true", "--dry-run", "--request-template", written(tmp_path, text))
            assert wrong.code == 2, wrong.err
            assert "this is no request to SageMaker" in wrong.err
        assert not cloud.wire.violations


@pytest.mark.skipif(bool(possible()), reason=possible())
def test_lambda_is_sent_what_a_template_adds(tmp_path: Path) -> None:
    settings = Settings(request_interval=0, launch_interval=0, boot_seconds=0.2, hosts="machine")
    with LambdaCloud(settings) as cloud:
        env = {**cloud.env, "LAMBDA_API_RPS": "1000", "LAMBDA_LAUNCH_INTERVAL": "0"}
        options = ("-y", "--remote", "lambda", "--gpu-type", "gpu_1x_a10", "--timeout", "5m")
        there = Desk(folder=tmp_path, options=options, env=env, left=lambda _run: ())
        refused = there.sh(
            "true", "--request-template", written(tmp_path, "file_system_names: [x]")
        )
        assert refused.code == 125
        assert "no filesystem x" in refused.err
        assert "cost" not in refused.err.replace("max-cost", ""), "nothing was rented"
        more = {"image": {"family": "lambda-stack-24-04"}, "tags": [{"key": "team", "value": "a"}]}
        done = there.sh("exit 3", "--request-template", written(tmp_path, json.dumps(more)))
        assert done.code == 3, done.err
        sent = [each.body for each in cloud.log if each.operation == "launchInstance"][-1]
        assert isinstance(sent, dict)
        assert sent["image"] == more["image"]
        assert [tag["key"] for tag in sent["tags"]][-1] == "team"
        assert not cloud.violations
