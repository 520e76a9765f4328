"""docker-compose.yml keeps the rules of Compose, and ours."""

import re
from collections.abc import Iterator

import pytest
from compose_spec import parse_duration

from dispatcher import broker, cluster
from dispatcher.commands.local import WORKERS
from dispatcher.settings import load
from tests.deployment.composition import FILE, ROOT, lanes, ours, parsed, raw, services

TEXT = FILE.read_text()


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("restart: unless-stopped", "restart: sometimes", "sometimes"),
        ("image: postgres:18", "imagee: postgres:18", "imagee"),
        ("condition: service_healthy", "condition: healthyish", "healthyish"),
        ("      - database_password\n", "      - forgotten\n", "forgotten"),
        ("      - inside\n", "      - elsewhere\n", "elsewhere"),
        ("stop_grace_period: 25s", "stop_grace_period: 25 years", "duration"),
        ("${DISPATCHER_PORT:-8000}", "${DISPATCHER_PORT}", "no default"),
    ],
)
def test_the_check_would_find_a_mistake(right: str, wrong: str, told: str) -> None:
    assert right in TEXT
    with pytest.raises(ValueError, match=told):
        parsed(TEXT.replace(right, wrong))


def test_the_address_and_port_of_the_api_can_be_set() -> None:
    given = {"DISPATCHER_PORT": "9000", "DISPATCHER_HOST": "10.0.0.1"}
    assert parsed(TEXT, given).to_dict()["services"]["api"]["ports"] == ["10.0.0.1:9000:8000"]
    assert services()["api"]["ports"] == ["127.0.0.1:8000:8000"]


def test_what_is_referred_to_is_there() -> None:
    composition = raw()
    for service in services().values():
        assert set(service.get("depends_on", {})) <= set(services())
        named = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert {name for name in named if not name.startswith("./")} <= set(composition["volumes"])


def test_the_services_are_those_of_the_design() -> None:
    processes = {"migrate", "api", "worker-urgent", "worker-normal", "worker-bulk", "beat"}
    assert set(ours()) == processes | {"sandbox"}
    assert set(services()) == set(ours()) | {"postgres", "valkey"}
    assert {name for name, each in services().items() if "profiles" in each} == {"sandbox"}


@pytest.mark.parametrize("name", sorted(services()))
def test_a_service_is_kept_and_watched(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert 20 < parse_duration(service["stop_grace_period"]) <= 30
    if name == "migrate":  # runs once; the others wait until it has succeeded
        assert service["restart"] == "no"
        return
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"]
    assert parse_duration(check["timeout"]) <= parse_duration(check["interval"])


@pytest.mark.parametrize("name", sorted(set(ours()) - {"migrate", "sandbox"}))
def test_a_process_waits_for_what_it_needs(name: str) -> None:
    needed = {other: each["condition"] for other, each in ours()[name]["depends_on"].items()}
    assert needed == {
        "migrate": "service_completed_successfully",
        "postgres": "service_healthy",
        "valkey": "service_healthy",
        "sandbox": "service_healthy",
    }
    # In live mode there is none.
    assert ours()[name]["depends_on"]["sandbox"]["required"] is False


@pytest.mark.parametrize("name", sorted(ours()))
def test_our_image_runs_without_rights(name: str) -> None:
    assert ours()[name]["cap_drop"] == ["ALL"]
    assert "user" not in ours()[name]
    assert "privileged" not in ours()[name]


def test_every_queue_is_served_and_no_lane_waits_for_another() -> None:
    served = {
        name: lanes(each["command"]) for name, each in ours().items() if name.startswith("worker-")
    }
    assert sorted(queue for queues in served.values() for queue in queues) == sorted(broker.QUEUES)
    assert {name: queues[0] for name, queues in served.items()} == {
        f"worker-{lane}": lane for lane in broker.LANES
    }


def test_every_queue_is_served_on_one_machine_too() -> None:
    assert {queue for queues in WORKERS.values() for queue in queues} == set(broker.QUEUES)


def test_the_database_is_as_discreet_as_the_embedded_one() -> None:
    flags = [flag for flag in services()["postgres"]["command"] if flag.startswith("-c")]
    ours_ = dict(flag.removeprefix("-c").split("=", 1) for flag in flags)
    # `listen_addresses`, sockets and `io_method` are the embedded server's own matter, and its
    # cache fits the machine.
    local = ("listen_addresses", "unix_socket", "io_method", "max_logical_replication", "shared")
    assert ours_.pop("shared_buffers") == "256MB"
    embedded = dict(_postgres_settings())
    wanted = {name: value for name, value in embedded.items() if not name.startswith(local)}
    assert ours_ == wanted
    assert {"log_min_error_statement", "log_parameter_max_length"} <= set(ours_)


def _postgres_settings() -> Iterator[tuple[str, str]]:
    for line in cluster._POSTGRES_CONF.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition(" = ")
            yield name, value.strip("'")


def test_the_broker_keeps_what_it_is_told() -> None:
    command = " ".join(services()["valkey"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert "broker:/data" in services()["valkey"]["volumes"]


def test_only_the_api_can_be_reached_from_outside() -> None:
    assert {name for name, each in services().items() if "ports" in each} == {"api"}
    networks = {name: each["networks"] for name, each in services().items()}
    closed = {name for name, each in networks.items() if each == ["inside"]}
    assert closed == {"postgres", "valkey", "sandbox"}
    assert raw()["networks"]["inside"] == {"internal": True}


def test_no_secret_stands_in_the_file() -> None:
    for secret in raw()["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    assert not re.search(r"[0-9a-f]{32}", TEXT)
    assert not re.search(r"//[^/\s]*:[^/\s]*@", TEXT), "a URL with a password"
    for service in services().values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|KEY|TOKEN|SECRET|DATABASE_URL", name):
                assert name.endswith("_FILE"), name
                assert value.startswith("/run/secrets/"), name


def test_secrets_and_their_own_settings_stay_out_of_the_repository_and_of_the_sandbox() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "/secrets/" in ignored
    assert "/.env" in ignored
    assert not ours()["sandbox"].get("secrets")
    assert set(ours()["sandbox"]["environment"]) == {"DISPATCHER_DATA_DIR"}


@pytest.mark.parametrize("name", sorted(ours()))
def test_every_variable_is_a_setting(name: str) -> None:
    given = {
        variable: value
        for variable, value in ours()[name]["environment"].items()
        if not variable.endswith("_FILE")
    }
    assert load(given).data_dir.as_posix() == "/data"
