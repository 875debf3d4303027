"""Sources of settings, their precedence, and error messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubelite.node.cri.bundles import runtime_path
from kubelite.settings import Settings, SettingsError
from runtime.errors import RuntimeFault


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("podCidr: 10.1.0.0/16\nbridge: file0\nnode-name: From-File\n")
    environ = {
        "KUBELITE_BRIDGE": "env0",
        "KUBELITE_ROOT": "/env",
        "KUBELITE_SOCKET": "/elsewhere",
        "KUBELITE_LOG_LEVEL": "DEBUG",
        "HOME": "/",
    }
    settings = Settings.load({"config": str(file), "root": "/flag", "bridge": None}, environ)
    assert (settings.pod_cidr, settings.bridge, settings.root) == ("10.1.0.0/16", "env0", "/flag")
    assert settings.node_name == "from-file"
    assert settings.socket == "/run/kubelite/kubelite.sock"


def test_kubelets_names_are_read(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "imageGCHighThresholdPercent: 70\nimageGCLowThresholdPercent: 60\nimageMinimumGCAge: 1m30s\n"
        "imageMaximumGCAge: 24h\npodCIDR: 10.2.0.0/16\nmaxParallelImagePulls: 7\nserializeImagePulls: true\n"
        "registryPullQPS: 2\nregistryBurst: 4\n"
    )
    settings = Settings.load({"config": str(file)}, {})
    assert (settings.image_gc_high_threshold_percent, settings.image_gc_low_threshold_percent) == (70, 60)
    assert (settings.image_minimum_gc_age, settings.image_maximum_gc_age) == (90.0, 86400.0)
    assert settings.pod_cidr == "10.2.0.0/16"
    assert settings.max_parallel_pulls == 7 and settings.serialize_image_pulls
    assert (settings.registry_pull_qps, settings.registry_burst) == (2.0, 4)


def test_pods_may_have_networks_of_both_families() -> None:
    both = Settings.load({"pod_cidr": "10.88.0.9/16, fd00:88::9/64"}, {})
    assert both.pod_cidr == "10.88.0.0/16,fd00:88::/64"
    assert both.pod_networks == ("10.88.0.0/16", "fd00:88::/64")
    assert Settings.load({"pod_cidr": "10.96.0.0/16,fd00::/96"}, {}).service_cidr == "172.30.0.0/16"
    assert Settings.load({}, {}).pod_networks == ("10.88.0.0/16", "")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("fd00:88::/64", "must begin with an IPv4 network, for example 10.88.0.0/16,fd00:88::/64"),
        ("fd00:88::/64,10.88.0.0/16", "must begin with an IPv4 network"),
        ("10.88.0.0/16,10.89.0.0/16", "must be one IPv4 network, or an IPv4 and an IPv6 network"),
        ("10.88.0.0/16,fd00::/64,fd01::/64", "must be one IPv4 network"),
        ("10.88.0.0/16,fd00::/112", "the IPv6 network must have a prefix between /8 and /96"),
        ("10.88.0.0/16,ff02::/64", "overlaps ff00::/8 \\(multicast\\)"),
        ("10.88.0.0/16,fe80::/64", "overlaps fe80::/10 \\(link-local\\)"),
        ("10.88.0.0/16,::/64", "overlaps ::/8 \\(loopback and IPv4\\)"),
        ("10.88.0.0/16,", "pod-cidr: "),
    ],
)
def test_other_lists_of_networks_are_refused(given: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings.load({"pod_cidr": given}, {})


def test_services_may_have_networks_of_both_families() -> None:
    dual = {"pod_cidr": "10.88.0.0/16,fd00:88::/64"}
    both = Settings.load({**dual, "service_cidr": "10.97.0.9/16, fd00:96::9/112"}, {})
    assert both.service_cidr == "10.97.0.0/16,fd00:96::/112"
    assert both.service_networks == ("10.97.0.0/16", "fd00:96::/112")
    assert Settings.load(dual, {}).service_networks == ("10.96.0.0/16", "")


@pytest.mark.parametrize(
    ("pods", "given", "words"),
    [
        (
            "10.88.0.0/16",
            "10.96.0.0/16,fd00:96::/112",
            "Services can have IPv6 addresses only if pods have them",
        ),
        ("10.88.0.0/16,fd00::/64", "fd00:96::/112", "must begin with an IPv4 network"),
        (
            "10.88.0.0/16,fd00::/64",
            "10.96.0.0/16,fd00::/112",
            "must not overlap that of pod_cidr, which is fd00::/64",
        ),
        ("10.88.0.0/16,fd00::/64", "10.96.0.0/16,fd00:96::/48", "must have a prefix between /64 and /124"),
        ("10.88.0.0/16,fd00::/64", "10.96.0.0/16,fe80::/112", "overlaps fe80::/10 \\(link-local\\)"),
        ("10.88.0.0/16,fd00::/64", "10.96.0.0/16,10.97.0.0/16", "must be one IPv4 network, or an IPv4 and"),
        (
            "10.88.0.0/16,fd00::/64",
            "10.88.0.0/17,fd00:96::/112",
            "must not overlap pod_cidr, which is 10.88.0.0/16",
        ),
    ],
)
def test_networks_of_services_that_are_refused(pods: str, given: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings.load({"pod_cidr": pods, "service_cidr": given}, {})


def test_defaults_are_consistent() -> None:
    settings = Settings.load({}, {})
    assert settings.node_name
    assert settings.listen == "127.0.0.1:10255"


@pytest.mark.parametrize(
    ("flags", "environ", "words"),
    [
        ({"listen": "nowhere"}, {}, "the command line: listen: must be HOST:PORT"),
        ({}, {"KUBELITE_POD_CIDR": "10.0.0.0/30"}, "the environment: pod-cidr: must be an IPv4 network"),
        ({}, {"KUBELITE_POD_CDR": "x"}, 'unknown setting "pod_cdr", did you mean "pod_cidr"'),
        ({"relist_seconds": "0"}, {}, "the command line: relist-seconds: "),
        ({"relist_seconds": "nan"}, {}, "relist-seconds: "),
        ({"crash_backoff_max": "-1"}, {}, "crash-backoff-max: "),
        ({"max_parallel_pulls": "0"}, {}, "max-parallel-pulls: "),
        ({"registry_pull_qps": "-1"}, {}, "registry-pull-qps: "),
        ({"registry_burst": "0"}, {}, "registry-burst: "),
        ({"image_minimum_gc_age": "1d"}, {}, 'image-minimum-gc-age: "1d" is not a duration'),
        ({"image_gc_low_threshold_percent": "90"}, {}, "must be below image-gc-high-threshold-percent"),
        ({"image_gc_high_threshold_percent": "101"}, {}, "image-gc-high-threshold-percent: "),
        ({"bridge": "a-name-too-long-for-linux"}, {}, "at most 15"),
        ({"cgroup_parent": "../.."}, {}, "cgroup-parent"),
        ({"config": "/missing/config.yaml"}, {}, "no such configuration file"),
    ],
)
def test_an_invalid_setting_names_itself_and_its_source(
    flags: dict[str, str], environ: dict[str, str], words: str
) -> None:
    with pytest.raises(SettingsError, match=words.replace("(", r"\(")):
        Settings.load(flags, environ)


def test_an_invalid_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("a: [")
    with pytest.raises(SettingsError, match=str(file)):
        Settings.load({"config": str(file)}, {})


def test_reservations_and_thresholds_as_text_or_as_a_mapping(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("kubeReserved:\n  cpu: 100m\n  memory: 1Gi\nevictionHard:\n  memory.available: 5%\n")
    found = Settings.load({"config": str(file)}, {})
    assert found.kube_reserved == "cpu=100m,memory=1Gi" and found.eviction_hard == "memory.available<5%"
    for setting, value in (("kube_reserved", "gpu=1"), ("eviction_hard", "disk<1"), ("reserved_cpus", "x")):
        with pytest.raises(SettingsError, match=setting.replace("_", "-")):
            Settings.load({setting: value}, {})


@pytest.mark.parametrize(
    "given", ["gpu=1", "example.com/gpu", "example.com/gpu=1.5", "x.kubernetes.io/a=1", "A.b/c=1"]
)
def test_extended_resources_are_names_of_a_domain_and_whole_numbers(given: str) -> None:
    assert Settings.load({"extended_resources": "example.com/gpu=2,b.c/d_e=0"}, {}).extended_resources
    with pytest.raises(SettingsError, match="extended-resources"):
        Settings.load({"extended_resources": given}, {})


def test_runtime_classes_are_names_and_paths(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("runtimeClasses:\n  runc: /usr/sbin/runc\n")
    assert Settings.load({"config": str(config)}, {}).runtime_classes == {"runc": "/usr/sbin/runc"}
    written = {
        "KUBELITE_RUNTIME_CLASSES": "runc=/usr/sbin/runc, crun=/usr/bin/crun",
        "KUBELITE_CONFIG": str(config),
    }
    assert Settings.load({}, written).runtime_classes == {"runc": "/usr/sbin/runc", "crun": "/usr/bin/crun"}
    for bad in ("runc", "runc=runc", "Run_c=/x"):
        with pytest.raises(SettingsError, match="runtime-classes"):
            Settings.load({}, {**written, "KUBELITE_RUNTIME_CLASSES": bad})


def test_priority_classes_are_names_and_numbers() -> None:
    written = {"KUBELITE_PRIORITY_CLASSES": "high=1000,low=-10"}
    assert Settings.load({}, written).priority_classes == {"high": 1000, "low": -10}
    for bad in ("high", "high=much", "system-mine=1", "high=1000000001", "Hi_gh=1"):
        with pytest.raises(SettingsError, match="priority-classes"):
            Settings.load({}, {"KUBELITE_PRIORITY_CLASSES": bad})


def test_an_unknown_runtime_class_has_kubelets_message(tmp_path: Path) -> None:
    settings = Settings(runtime_classes={"runc": "/bin/true", "gone": str(tmp_path / "gone")})
    assert runtime_path("", settings) == ""
    assert runtime_path("runc", settings) == "/bin/true"
    with pytest.raises(RuntimeFault, match=r'^RuntimeClass "x" not found .*gone, runc'):
        runtime_path("x", settings)
    with pytest.raises(RuntimeFault, match=r'^no runtime for "gone" is configured: .* cannot be executed'):
        runtime_path("gone", settings)
