"""Settings of a station, and the chain of its audit log."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ctenrich.errors import UsageError
from ctenrich.listener.audit import append_event, check_log
from ctenrich.listener.config import (
    CloseRule,
    Peer,
    StationConfig,
    TlsFiles,
    load_config,
    parse_address,
    parse_close,
    parse_duration,
    parse_peer,
)


def test_a_station_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "station.toml").write_text(
        'aet = "LAB"\n[[peers]]\naet = "SCANNER1"\nhost = "10.1.0.0/16"\npriority = 5\ndeadline = 900\n'
        '[close]\nwhen = "expect"\nroles = ["CT", "RTSTRUCT"]\n[limits]\nmax_associations = 4\n'
    )
    config = load_config(tmp_path / "station.toml")
    config.check()
    assert config.close == CloseRule(when="expect", roles=("CT", "RTSTRUCT"))
    assert config.limits.max_associations == 4
    assert config.peer("SCANNER1", "10.1.2.3") == Peer(aet="SCANNER1", host="10.1.0.0/16", priority=5, deadline=900)
    assert config.peer("SCANNER1", "::ffff:10.1.2.3") is not None
    assert config.peer("SCANNER2", "10.1.2.3") is config.peer("SCANNER1", "10.2.2.3") is None
    assert load_config(tmp_path / "other.toml") == StationConfig()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("aett = 'X'", "unknown setting aett"),
        ("[limits]\nmax_assoc = 3", "unknown setting limits.max_assoc"),
        ("[[peers]]\naet = 'A'\nhost = '::1'\nport = 3", "unknown setting peers.port"),
        ("[close]\nwhen = 'never'", "close.when"),
        ("aet = [", "not TOML"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "station.toml").write_text(text)
    with pytest.raises(UsageError, match="BAD_SETTINGS") as caught:
        load_config(tmp_path / "station.toml")
    assert words in caught.value.message


@pytest.mark.parametrize(
    "config",
    [
        StationConfig(aet="LONGER THAN SIXTEEN"),
        StationConfig(peers=(Peer(aet="A", host="scanner.example"),)),
        StationConfig(peers=(Peer(aet="A", host="::1", priority=6),)),
        StationConfig(peers=(Peer(aet="A", host="::1", quiet=-1),)),
        StationConfig(dicom="0.0.0.0:104"),
        StationConfig(tls=TlsFiles(certificate="c.pem")),
        StationConfig(watch="/no/such/folder"),
        StationConfig(close=CloseRule(when="expect")),
        StationConfig(close=CloseRule(then="wait")),
        StationConfig(limits=replace(StationConfig().limits, max_associations=0)),
    ],
)
def test_what_cannot_be_right_is_refused(config: StationConfig) -> None:
    with pytest.raises(UsageError, match="BAD_SETTINGS"):
        config.check()


def test_other_computers_need_tls_unless_that_is_waived() -> None:
    StationConfig(dicom="0.0.0.0:104", insecure=True).check()
    StationConfig(dicom="0.0.0.0:104", tls=TlsFiles(certificate="a", key="b", ca="c")).check()


def test_values_of_options() -> None:
    assert parse_peer("A B@localhost=0") == Peer(aet="A B", host="127.0.0.1", priority=0)
    assert parse_address("[::1]:104").host == "::1"
    assert [parse_duration(text) for text in ("90", "1.5s", "15m", "6h", "7d")] == [90, 1.5, 900, 21600, 604800]
    assert parse_close("association") == ("association", 0.0, ())
    assert parse_close("quiet:2m") == ("quiet", 120.0, ())
    assert parse_close("expect:CT,RTSTRUCT:5s") == ("expect", 5.0, ("CT", "RTSTRUCT"))


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_peer, "SCANNER"), (parse_peer, "A@1.2.3.4=x"), (parse_address, "104"), (parse_address, "h:99999"),
        (parse_duration, "soon"), (parse_close, "later"), (parse_close, "expect"),
    ],
)  # fmt: skip
def test_values_that_are_wrong(parse: object, text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)  # type: ignore[operator]


def test_the_audit_log_is_a_chain(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    threads = [threading.Thread(target=append_event, args=(log, "event"), kwargs={"number": n}) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (check_log(log).events, check_log(log).broken) == (8, 0)
    lines = log.read_bytes().splitlines(keepends=True)
    for wrong in (lines[:3] + lines[4:], [*lines[:3], lines[3].replace(b"event", b"EVENT", 1), *lines[4:]]):
        log.write_bytes(b"".join(wrong))
        assert check_log(log).broken == 4


def test_a_line_that_was_cut_is_replaced(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    append_event(log, "one")
    with log.open("ab") as file:
        file.write(b'{"time": 1, "eve')
    append_event(log, "two")
    assert (check_log(log).events, check_log(log).broken) == (2, 0)
