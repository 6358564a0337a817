"""docker-compose.monitoring.yml over both ways to serve, as Docker Compose itself reads them."""

import re
from typing import Any

import pytest
import yaml
from deployment import CPU, GPU, REPOSITORY, application, compose

OVERLAY = "docker-compose.monitoring.yml"
PASSWORD = {"GRAFANA_PASSWORD": "of-the-test"}
over_both = pytest.mark.parametrize("files", [(*GPU, OVERLAY), (*CPU, OVERLAY)], ids=["gpu", "cpu"])


def added(*files: str) -> dict[str, Any]:
    """The services that the overlay adds."""
    services = application(*files, **PASSWORD)["services"]
    return {name: services[name] for name in ("prometheus", "grafana")}


@over_both
def test_it_adds_two_services_and_leaves_the_others_as_they_are(files: tuple[str, ...]) -> None:
    services = application(*files, **PASSWORD)["services"]
    without = application(*files[:-1], TEACHER_METRICS_OPEN="true")["services"]
    assert {name: services[name] for name in without} == without
    assert set(services) - set(without) == {"prometheus", "grafana"}


@over_both
def test_what_it_adds_is_locked_down_and_pinned(files: tuple[str, ...]) -> None:
    for service in added(*files).values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "/tmp" in service["tmpfs"]
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"])
        assert not service["user"].startswith("0:")
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}
        assert service["healthcheck"]["test"]
        binds = [mount for mount in service["volumes"] if mount["type"] == "bind"]
        assert all(mount["read_only"] for mount in binds)


def test_its_files_are_there_and_find_one_another() -> None:
    prometheus, grafana = added(*GPU, OVERLAY).values()
    inside = {
        mount["target"]: mount["source"]
        for service in (prometheus, grafana)
        for mount in service["volumes"]
        if mount["type"] == "bind"
    }
    for source in inside.values():
        assert (REPOSITORY / source).exists(), source
    assert inside["/etc/prometheus/prometheus.yml"].endswith("deploy/monitoring/prometheus.yml")
    assert "--config.file=/etc/prometheus/prometheus.yml" in prometheus["command"]
    rules = yaml.safe_load((REPOSITORY / "deploy/monitoring/prometheus.yml").read_text())["rule_files"]
    assert {f"/etc/prometheus/{name}" for name in rules} <= inside.keys()
    provisioning = REPOSITORY / "deploy/monitoring/grafana/provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards/teacher.yml").read_text())["providers"]
    assert f"{provider['options']['path']}/dashboard.json" in inside
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == f"http://prometheus:{prometheus['ports'][0]['target']}"


def test_metrics_may_be_kept_for_keys_of_scope_admin() -> None:
    for given, metrics_open in (({}, "true"), ({"TEACHER_METRICS_OPEN": "false"}, "false")):
        services = application(*GPU, OVERLAY, **PASSWORD, **given)["services"]
        assert services["teacher"]["environment"]["TEACHER_METRICS_OPEN"] == metrics_open


def test_replicas_are_open_to_prometheus_by_the_variable() -> None:
    files = (*GPU, OVERLAY, "deploy/replicas.yml")
    services = application(*files, **PASSWORD, TEACHER_METRICS_OPEN="true")["services"]
    for name in ("teacher", "teacher-2"):
        assert services[name]["environment"]["TEACHER_METRICS_OPEN"] == "true"


def test_prometheus_finds_the_servers_by_name_and_port() -> None:
    services = application(*GPU, OVERLAY, **PASSWORD)["services"]
    config = yaml.safe_load((REPOSITORY / "deploy/monitoring/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    (name,) = found["names"]
    assert found["port"] in {port["target"] for port in services[name]["ports"]}
    assert set(services["prometheus"]["networks"]) & set(services[name]["networks"])


def test_grafana_has_no_password_of_ours() -> None:
    ran = compose(*GPU, OVERLAY, TEACHER_MODEL="/models/teacher")
    assert ran.returncode != 0
    assert "set GRAFANA_PASSWORD" in ran.stderr


def test_every_variable_of_the_overlay_is_documented() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", (REPOSITORY / OVERLAY).read_text())) - {"PUBLISH_ADDRESS"}
    documented = (REPOSITORY / "deploy/monitoring/README.md").read_text()
    assert used
    assert not {name for name in used if f"`{name}`" not in documented}
