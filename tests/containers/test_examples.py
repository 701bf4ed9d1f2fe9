# SPDX-License-Identifier: MIT
"""The examples for Compose and Kubernetes: what they name is there, what they promise adds up, their configurations work."""

import os
import re
import subprocess

import pytest
import yaml

from binary import REDIALD
from conftest import IMAGE, TOP, has_admin
from container import UID

HERE = os.path.join(TOP, "containers")
# Kubernetes lets every pod set these, and only these: "Safe and Unsafe Sysctls". Those of a network alone, of 1.29.
SAFE = {"net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_fin_timeout"}


def read(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as f:
        return f.read()


def sidecar(pod):
    return next(c for c in pod["initContainers"] if c["name"] == "redial")


SERVICE = yaml.safe_load(read("compose.yaml"))["services"]["redial"]
OBJECTS = list(yaml.safe_load_all(read("kubernetes.yaml")))
CONFIG_MAP = OBJECTS[0]
PODS = {o["kind"]: o["spec"]["template"]["spec"] for o in OBJECTS[1:]}
EACH_POD = pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
CONFIGURATIONS = {"compose": read("rediald.conf"), "kubernetes": CONFIG_MAP["data"]["rediald.conf"]}
if not has_admin():
    CONFIGURATIONS = {k: re.sub("(?m)^admin", "#admin", v) for k, v in CONFIGURATIONS.items()}
SYSCTLS = {"compose": SERVICE["sysctls"],
           **{kind: {s["name"]: s["value"] for s in pod["securityContext"]["sysctls"]}
              for kind, pod in PODS.items()}}


def effective(text, tmp_path):
    """The configuration as rediald understands it: (section, key, value) of each line."""
    path = tmp_path / "example.conf"
    path.write_text(text)
    result = subprocess.run([REDIALD, "-c", str(path), "--dump"], capture_output=True, text=True,
                            check=False)
    assert result.returncode == 0, result.stderr
    section, found = None, []
    for line in result.stdout.splitlines():
        if match := re.match(r"\[(.*)\]$", line):
            section = match[1]
        elif match := re.match(r"(\w+) = (.*)$", line):
            found.append((section, match[1], match[2]))
    return found


def value(found, key):
    return next(v for _, k, v in found if k == key)


def seconds(text):
    number, unit = re.match(r"(\d+)(ms|s|m|h)$", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configuration_is_valid(name, tmp_path):
    path = tmp_path / "rediald.conf"
    path.write_text(CONFIGURATIONS[name])
    result = subprocess.run([REDIALD, "-c", str(path), "--check"], capture_output=True, text=True,
                            check=False)
    assert result.returncode == 0, result.stderr
    assert "admin = unix:/run/redial/admin.sock" in CONFIGURATIONS[name], "redialctl's own default"


@pytest.mark.parametrize("name, configuration", [("compose", "compose"), ("Deployment", "kubernetes"),
                                                 ("Job", "kubernetes")])
def test_sysctls_take_the_ports_out_of_the_range(contain, name, configuration):
    """With them rediald has nothing to warn of; without, it has."""
    container = contain(CONFIGURATIONS[configuration], sysctls=SYSCTLS[name])
    container.wait_event("ready")
    assert container.has("listen_port_in_range", reserved="yes"), container.text
    assert not container.has("listen_port_in_range", reserved="no"), container.text
    assert container.all_json()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_ports_are_in_the_range_without_the_sysctls(contain, name):
    container = contain(CONFIGURATIONS[name])
    container.wait_event("ready")
    assert container.has("listen_port_in_range", reserved="no")


# Compose

def test_service_is_confined_as_the_image_is_made_to_be():
    assert SERVICE["user"] == IMAGE.last("USER") == f"{UID}:{UID}"
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in SERVICE["security_opt"]
    assert SERVICE["tmpfs"] == [f"/run/redial:mode=0700,uid={UID},gid={UID}"]
    assert SERVICE["healthcheck"]["test"] == ["CMD", *IMAGE.arguments("HEALTHCHECK")]


def test_service_has_a_build_and_files():
    assert os.path.exists(os.path.join(HERE, SERVICE["build"]["context"], "Dockerfile"))
    for volume in SERVICE["volumes"]:
        source, target, mode = volume.split(":")
        assert os.path.exists(os.path.join(HERE, source)) and mode == "ro"
        assert target == "/etc/redial/rediald.conf"


def test_services_dial_each_other(tmp_path):
    services = yaml.safe_load(read("compose.yaml"))["services"]
    found = effective(CONFIGURATIONS["compose"], tmp_path)
    host, _ = value(found, "server").split()[0].rsplit(":", 1)
    assert host in services
    port = value(found, "listen").rsplit(":", 1)[1]
    assert f"-h redial -p {port}" in services["app"]["command"][-1]
    assert "redial" in services["app"]["depends_on"]


def test_service_is_not_killed_while_it_drains(tmp_path):
    found = effective(CONFIGURATIONS["compose"], tmp_path)
    ending = seconds(value(found, "lame_duck")) + seconds(value(found, "drain_timeout"))
    assert 0 < ending < seconds(SERVICE["stop_grace_period"])


# Kubernetes

@EACH_POD
def test_sidecar_is_native_and_has_probes(pod):
    container = sidecar(pod)
    assert container["restartPolicy"] == "Always"
    assert "startupProbe" in container and "lifecycle" not in container
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        for how, what in container.get(probe, {}).items():
            if how == "httpGet":
                assert what["path"] in ("/healthz", "/readyz")
                assert f"*:{ports[what['port']]}" in CONFIGURATIONS["kubernetes"]
            elif how == "exec":
                assert what["command"][:2] == IMAGE.arguments("HEALTHCHECK")


@EACH_POD
def test_sidecar_is_confined_as_the_image_is_made_to_be(pod):
    container, of_pod = sidecar(pod)["securityContext"], pod["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert f"{of_pod['runAsUser']}:{of_pod['runAsGroup']}" == IMAGE.last("USER")
    assert container["readOnlyRootFilesystem"] is True
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert {s["name"] for s in of_pod["sysctls"]} <= SAFE


@EACH_POD
def test_volumes_are_there(pod):
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {m["mountPath"]: volumes[m["name"]] for m in sidecar(pod)["volumeMounts"]}
    assert mounts["/etc/redial"]["configMap"]["name"] == CONFIG_MAP["metadata"]["name"]
    assert "emptyDir" in mounts["/run/redial"]


@EACH_POD
def test_application_dials_the_sidecar(pod, tmp_path):
    found = effective(CONFIGURATIONS["kubernetes"], tmp_path)
    assert pod["containers"][0]["env"][0]["value"] == value(found, "listen")


@EACH_POD
def test_sidecar_is_not_killed_while_it_drains(pod, tmp_path):
    found = effective(CONFIGURATIONS["kubernetes"], tmp_path)
    ending = seconds(value(found, "lame_duck")) + seconds(value(found, "drain_timeout"))
    assert 0 < ending < pod.get("terminationGracePeriodSeconds", 30)
