"""Settings from the environment, from options, and from key files."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import SettingsError
from serving.settings import Settings

KEY, OTHER = "a-key-of-a-client", "another-clients-key"


def test_defaults_listen_on_this_machine_only_and_ask_for_no_key():
    settings = Settings.read({})
    assert settings.is_loopback
    assert settings.api_keys == ()


def test_options_win_over_the_environment_and_the_environment_over_defaults():
    environment = {"GENREC_PORT": "9000", "GENREC_MAX_BATCH": "4", "PATH": "/bin"}
    settings = Settings.read(environment, port=9001, host=None, bundle=Path("x"))
    assert (settings.port, settings.max_batch, settings.host) == (9001, 4, "127.0.0.1")


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback(host, is_loopback):
    assert Settings(host=host).is_loopback is is_loopback


def test_keys_from_a_variable_and_from_a_file(tmp_path):
    assert Settings.read({"GENREC_API_KEYS": f" {KEY}, {OTHER},"}).api_keys == (KEY, OTHER)
    (tmp_path / "keys").write_text(f"# clients\n{KEY}\n\n  {OTHER}\n")
    settings = Settings.read(
        {"GENREC_ADMIN_KEYS_FILE": str(tmp_path / "keys")}, api_keys_file=tmp_path / "keys"
    )
    assert settings.api_keys == settings.admin_keys == (KEY, OTHER)


def test_bad_settings_are_refused_without_telling_a_key(tmp_path):
    (tmp_path / "empty").write_text("# nothing\n")
    for environment, match in [
        ({"GENREC_PROT": "1"}, "got GENREC_PROT"),
        ({"GENREC_PORT": "70000"}, r"port \(GENREC_PORT\)"),
        ({"GENREC_MAX_BATCH": "0"}, "greater than or equal to 1"),
        ({"GENREC_MAX_BATCH": "many"}, "valid integer"),
        ({"GENREC_QUEUE_SIZE": "8"}, "max_requests of at most queue_size, got 64 and 8"),
        ({"GENREC_MAX_TIMEOUT_MS": "50"}, "got 10000 and 50"),
        ({"GENREC_LOG_LEVEL": "loud"}, "'debug', 'info'"),
        ({"GENREC_API_KEYS": "short-secret"}, "at least 16"),
        ({"GENREC_API_KEYS": "a secret with spaces in it"}, "without spaces"),
        ({"GENREC_API_KEYS": "ein-geheimer-schlüssel"}, "printable ASCII"),
        ({"GENREC_API_KEYS_FILE": str(tmp_path / "none")}, "expected a file of API keys"),
        ({"GENREC_API_KEYS_FILE": str(tmp_path / "empty")}, "at least one API key"),
    ]:
        with pytest.raises(SettingsError, match=match) as error:
            Settings.read(environment)
        assert "secret" not in str(error.value)
