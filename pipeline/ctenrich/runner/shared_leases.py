"""Leases in a store that several machines reach: a bucket, or a folder on a shared disk.

Every change of a lease is a new object, ``URL/<series>/<number>.json``, created under the precondition that no object
of that name exists: of two runners that create the same number, one is refused. The highest number is valid. A lease
contains its time of expiry (wall clock of its writer); other runners wait longer than the clocks of two synchronised
machines can differ, so that a lease is taken over only if its holder has ended.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ctenrich.errors import IncompleteError, UsageError
from ctenrich.ledger.leases import Lease, boottime
from ctenrich.reasons import Reason
from ctenrich.settings import FetchSettings
from ctenrich.storage import is_storage_url, open_storage
from ctenrich.storage.base import Storage, Transfer
from ctenrich.workspace import check_uid, write_bytes

__all__ = ["SharedLeases"]

_PROBE = "created-once"
"""Object that tests whether an S3 store honours preconditions."""
_CLOCKS_DIFFER = 30.0
"""Seconds that the clocks of two machines may differ."""


@dataclass(frozen=True)
class _Claim:
    """Content of one object."""

    number: int
    runner: str
    """Name of the runner, the same after a restart."""
    owner: str
    """Name of the process; empty: the lease was given back."""
    expires: float
    """Seconds since 1970."""
    finished: bool = False


class SharedLeases:
    """Leases of series between runners on different machines, each with its own run folder and ledger.

    Parameters
    ----------
    url : str
        ``gs://bucket/prefix``, ``s3://bucket/prefix`` or ``file:///shared/folder``: the same for all runners of the
        cohort.
    settings : FetchSettings
        Access to the store.
    home : Path
        The run's folder; its ``runner.json`` contains the name of this runner.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a store without atomic creation; S3 stores differ, so this one is tested.
    """

    poll_interval = 5.0
    """Seconds to wait before asking again for series that others hold."""

    def __init__(self, url: str, settings: FetchSettings, home: Path) -> None:
        self._url = url.rstrip("/")
        self._storage = _open_lease_storage(self._url, settings)
        self._runner = _name_of_runner(home)
        self._known: dict[str, _Claim] = {}

    def acquire(self, series_instance_uid: str, owner: str, seconds: float) -> Lease | None:
        """Take the lease of a series; None if another owner holds it, or another runner has finished the series.

        Parameters
        ----------
        series_instance_uid : str
            The series.
        owner : str
            Name of this process, different from that of every other one.
        seconds : float
            Time until the lease expires.
        """
        last = self._newest(series_instance_uid)
        if last is not None and self._is_of_another(last, owner):
            return None
        return self._claim(series_instance_uid, (last.number if last else 0) + 1, owner, seconds)

    def renew(self, lease: Lease, seconds: float) -> Lease | None:
        """Extend a lease by `seconds` from now; None if another owner has taken it meanwhile."""
        if not self.holds(lease):
            return None
        return self._claim(lease.series_instance_uid, lease.token + 1, lease.owner, seconds)

    def holds(self, lease: Lease) -> bool:
        """Return whether the lease has the newest token: only then may a result be recorded."""
        last = self._newest(lease.series_instance_uid)
        return last is not None and (last.number, last.owner) == (lease.token, lease.owner)

    def release(self, lease: Lease, *, finished: bool = False) -> None:
        """Give a lease back; `finished`: the series has its outcome, and other runners leave it alone."""
        if self.holds(lease):
            self._claim(lease.series_instance_uid, lease.token + 1, "", 0.0, finished=finished)

    def finished_elsewhere(self, series_instance_uid: str) -> bool:
        """Whether another runner has given the series its outcome (as of the last look)."""
        last = self._known.get(series_instance_uid)
        return last is not None and last.finished and last.runner != self._runner

    def _is_of_another(self, last: _Claim, owner: str) -> bool:
        if last.finished:
            return last.runner != self._runner
        held = bool(last.owner) and last.expires + _CLOCKS_DIFFER > time.time()
        return held and last.owner != owner

    def _claim(self, uid: str, number: int, owner: str, seconds: float, *, finished: bool = False) -> Lease | None:
        claim = _Claim(number, self._runner, owner, time.time() + seconds, finished)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "claim.json"
            path.write_text(json.dumps(asdict(claim) | {"token": secrets.token_hex(8)}))
            try:
                self._storage.upload(path, f"{self._url}/{check_uid(uid)}/{number:08d}.json")
            except UsageError:  # somebody was first
                return None
        self._known[uid] = claim
        return Lease(series_instance_uid=uid, owner=owner, token=number, expires=boottime() + seconds)

    def _newest(self, uid: str) -> _Claim | None:
        """The claim with the highest number; read only if it is not the one that we know."""
        try:
            objects = self._storage.list_objects(f"{self._url}/{check_uid(uid)}/")
        except IncompleteError:
            return None
        try:
            numbers = {
                int(o.url.rsplit("/", 1)[-1].removesuffix(".json")): o.url for o in objects if o.url.endswith(".json")
            }
        except ValueError:
            raise _foreign_place() from None
        if not numbers:
            return None
        number = max(numbers)
        known = self._known.get(uid)
        if known is None or known.number != number:
            known = self._known[uid] = self._read(numbers[number])
        return known

    def _read(self, url: str) -> _Claim:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "claim.json"
            self._storage.download([Transfer(url, path)])
            try:
                found = json.loads(path.read_bytes())
                return _Claim(
                    int(found["number"]), str(found["runner"]), str(found["owner"]), float(found["expires"]),
                    bool(found["finished"]),
                )  # fmt: skip
            except (ValueError, KeyError, TypeError) as error:
                raise _foreign_place() from error


def _foreign_place() -> UsageError:
    message = "the place that is to be shared holds something else"
    return UsageError(Reason.BAD_PARAMETER, message, "name an empty prefix")


def _open_lease_storage(url: str, settings: FetchSettings) -> Storage:
    hint = "a store that can create an object only if it is new"
    if not is_storage_url(url):
        message = "runners can share a cohort through gs://bucket/prefix, s3://bucket/prefix or file:///folder"
        raise UsageError(Reason.BAD_PARAMETER, message, hint)
    storage = open_storage(url, settings)
    if not storage.refuses_overwriting(f"{url}/{_PROBE}"):
        message = "the store overwrites what should be created only if it is new: runners cannot share a cohort there"
        raise UsageError(Reason.BAD_PARAMETER, message, hint)
    return storage


def _name_of_runner(home: Path) -> str:
    """Name of the runner of this run's folder, chosen once."""
    path = home / "runner.json"
    if not path.is_file():
        write_bytes(path, json.dumps({"runner": secrets.token_hex(8)}).encode())
    return str(json.loads(path.read_bytes())["runner"])
