"""Frozen records of a flow file: triggers, roles, steps, destinations and hooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from ctenrich.dicom.texts import AttributeTag
from ctenrich.flows.closing import CloseRule

__all__ = [
    "DST",
    "SRC",
    "Attribute",
    "Condition",
    "Contract",
    "Destination",
    "DestinationKind",
    "Flow",
    "Hook",
    "Limits",
    "Mount",
    "Note",
    "OutputGrid",
    "Pattern",
    "Position",
    "ResultFormat",
    "Role",
    "Step",
    "Trigger",
    "When",
]

SRC = "src"
"""Name of the mount that holds the received files of a flow."""
DST = "dst"
"""Name of the mount whose files are sent to the destinations."""


class Position(NamedTuple):
    """A place in a flow file, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something about a flow file that does not prevent its use: a spelling that was normalised, or a risk."""

    place: Position
    message: str


# ---------------------------------------------------------------- which files


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """An attribute of a data set's top level, as a flow names it."""

    name: str
    """The keyword (``SeriesDescription``), or the spelling of a private attribute (``(0019,"GEMS_ACQU_01",23)``)."""
    group: int
    element: int
    """Element number; of a private attribute its last two digits, those after the block."""
    creator: str = ""
    """Private creator; empty for an attribute of the standard."""

    @property
    def tag(self) -> AttributeTag:
        """The attribute's tag, by which its text is read."""
        return AttributeTag(self.group, self.element, self.creator)


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A regular expression that is searched in the text of a value."""

    text: str
    """As written, with the ``~`` of a negative one."""
    regex: str
    negative: bool
    """Whether a file matches if the expression is *not* found."""
    place: Position


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Patterns for one attribute; all must hold."""

    attribute: Attribute
    patterns: tuple[Pattern, ...]


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """Conditions for one file; all must hold. Without conditions every file matches."""

    conditions: tuple[Condition, ...]
    place: Position


@dataclass(frozen=True, kw_only=True)
class Role:
    """A named part of a flow's input, e.g. the planning CT; a source of mounts like ``src``."""

    name: str
    triggers: tuple[Trigger, ...]
    """A file has the role if it matches one of these."""
    series: int = 1
    """How many series at least must have the role."""


# ---------------------------------------------------------------- what runs


class Contract(StrEnum):
    """Where a container expects its input, output and configuration."""

    AUTO = "auto"
    """As the image states: MAP by its manifest, MHub by its entry point, else RadDeploy."""
    RADDEPLOY = "raddeploy"
    MHUB = "mhub"
    MAP = "map"
    MERCURE = "mercure"
    PLAIN = "plain"


class ResultFormat(StrEnum):
    """Files in which another step reads the results of a built-in product."""

    DICOM = "dicom"
    """Its objects: SEG and SR."""
    RTSTRUCT = "rtstruct"
    """Its masks as RT Structure Sets."""
    NIFTI = "nifti"
    """Its masks as NIfTI, with their description."""


class When(StrEnum):
    """When a flow may start."""

    ANY = "any"
    OFF_PEAK = "off_peak"


class Mount(NamedTuple):
    """A named set of files, and the absolute path at which a step sees it.

    `source` is ``src``, a role or an output of another step (inputs); a new name or ``dst`` (outputs); the name of a
    static file or folder (static mounts).
    """

    source: str
    target: str


class OutputGrid(StrEnum):
    """Where the NIfTI files of a step lie."""

    ANY = "any"
    """Anywhere: a step may resample for the next one."""
    INPUT = "input"
    """On the voxels of a series of the flow's input."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a container or command, and what it may do."""

    cpus: float = 0.0
    """Processors; 0: those of the machine's set-up."""
    memory: int = 0
    """Bytes; 0: as the engine is set up."""
    shared_memory: int = 0
    """Bytes of /dev/shm; 0: default of the engine."""
    network: bool = False
    root: bool = False
    """Run as root inside the container."""
    user: str = ""
    """User inside the container; empty: an unprivileged one."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A model, command or container of a flow. One of `use`, `image` and `command` says what runs."""

    name: str
    """Unique in its flow: as written, else ``step1``, ``step2`` ..."""
    place: Position
    use: str = ""
    """Built-in product: ``nnunet:MODEL``, ``totalsegmentator:TASK``, ``bodypart:MODEL``, ``expert`` ..."""
    formats: tuple[ResultFormat, ...] = (ResultFormat.DICOM,)
    """Files in which other steps read the results of `use`."""
    image: str = ""
    """Container image; a reference by digest if the flow pins it."""
    command: tuple[str, ...] = ()
    """Command of the container; without `image`: a program of this machine with its arguments."""
    entrypoint: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    contract: Contract = Contract.AUTO
    inputs: tuple[Mount, ...] = (Mount(SRC, "/input"),)
    outputs: tuple[Mount, ...] = (Mount(DST, "/output"),)
    static_mounts: tuple[Mount, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    config_folder: str = "/config"
    """Folder in which ``config.yaml`` with `config` is put."""
    subfolders: tuple[str, ...] = ()
    """Attributes whose values name the subfolders of the files of ``src`` and roles; text without a keyword's spelling
    is the name of a folder."""
    gpu: bool = False
    device: str = ""
    """Which GPU, e.g. ``0``; empty: any."""
    tags: tuple[str, ...] = ()
    """Resources that the step needs, by name."""
    limits: Limits = field(default_factory=Limits)
    priority: int | None = None
    """0 to 5; None: that of the flow."""
    timeout: float = 1800.0
    """Seconds."""
    grid: OutputGrid = OutputGrid.ANY
    """Where the NIfTI files that it writes lie."""
    retries: int = 0
    """Further attempts after a failure."""
    may_be_empty: bool = False
    """Whether no output is a result and not an error."""


# ---------------------------------------------------------------- where results go


class DestinationKind(StrEnum):
    """How results are sent."""

    DICOM = "dicom"
    """C-STORE."""
    DICOMWEB = "dicomweb"
    """STOW-RS."""
    BUCKET = "bucket"
    FOLDER = "folder"


@dataclass(frozen=True, kw_only=True)
class Destination:
    """A receiver of results."""

    name: str
    """As written, else from its address; unique in its flow."""
    kind: DestinationKind
    place: Position
    host: str = ""
    port: int = 0
    ae_title: str = ""
    """Called AE title."""
    calling_ae_title: str = ""
    """Empty: that of the station."""
    tls: bool = False
    url: str = ""
    """URL of a DICOMweb server or bucket, or path of a folder."""
    hold: bool | None = None
    """Whether results wait until a person releases them; None: as the station is configured."""


@dataclass(frozen=True, kw_only=True)
class Hook:
    """A message about a case that is sent at an event."""

    place: Position
    on: tuple[str, ...]
    """Events: ``done``, ``failed``, ``delivered``, ``held``."""
    url: str = ""
    """A webhook gets a POST."""
    email: str = ""
    identifiers: bool = False
    """Whether the message may hold identifiers of the patient; each such message is recorded in the audit log."""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A parsed and checked flow file."""

    name: str
    """As written, else the name of the file without its suffix."""
    version: str
    path: str
    """The file that it was read from."""
    sha256: str
    """Of the file's bytes."""
    triggers: tuple[Trigger, ...]
    """Each must match a file of the case; the files that match one of them are the input."""
    never: tuple[Trigger, ...] = ()
    """If a file of the case matches one of these, the flow does not fire."""
    roles: tuple[Role, ...] = ()
    """Each must be there; their files are input too."""
    close: CloseRule | None = None
    """When a case that the flow wants is complete; None: as the station is configured."""
    steps: tuple[Step, ...]
    destinations: tuple[Destination, ...] = ()
    return_to_sender_ports: tuple[int, ...] = ()
    priority: int = 0
    """0 to 5; 5 first."""
    fallback: bool = False
    """Fire only if no other flow fires on the case."""
    shadow: bool = False
    """Run beside the other flows of a case: nothing is sent, and the results are compared with theirs."""
    when: When = When.ANY
    when_place: Position
    """Where `when` is stated."""
    hooks: tuple[Hook, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
