"""Read the steps of a flow file, in RadDeploy's spelling or in ours."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from ctenrich.containers.contracts import CONTRACTS
from ctenrich.errors import did_you_mean
from ctenrich.flows.findings import Findings
from ctenrich.flows.records import DST, SRC, Contract, Limits, Mount, OutputGrid, Position, ResultFormat, Step
from ctenrich.flows.yaml_nodes import Node

__all__ = ["read_step", "read_subfolders"]

_KEYS = (
    "name", "use", "formats", "image", "command", "entrypoint", "environment", "contract", "docker_kwargs", "inputs",
    "input_mounts", "outputs", "output_mounts", "static_mounts", "config", "config_dump_folder", "subfolders", "gpu",
    "device", "tags", "cpus", "memory", "shared_memory", "network", "root", "user", "priority", "timeout", "retries",
    "may_be_empty", "grid", "pull_before_exec",
)  # fmt: skip
_DOCKER = {
    "image": "image", "command": "command", "entrypoint": "entrypoint", "environment": "environment", "user": "user",
    "mem_limit": "memory", "shm_size": "shared_memory",
}  # fmt: skip
"""Key of docker_kwargs -> key of a step."""
_IGNORED = (
    "cpu_period", "cpu_quota", "cpu_rt_period", "cpu_rt_runtime", "cpu_shares", "cpuset_cpus", "device_read_bps",
    "device_read_iops", "device_write_bps", "device_write_iops", "ipc_mode", "labels", "mem_reservation",
    "mem_swappiness", "memswap_limit", "ports",
)  # fmt: skip
"""Keys of docker_kwargs that RadDeploy lists and that have no meaning here."""
_OPENING = (
    "privileged", "volumes", "mounts", "network", "network_mode", "cap_add", "devices", "device_cgroup_rules",
    "pid_mode", "userns_mode", "security_opt", "volumes_from", "device_requests", "runtime", "auto_remove", "detach",
)  # fmt: skip
_OF_BUILT_IN = frozenset({"name", "use", "formats", "inputs", "input_mounts", "outputs", "output_mounts"})
"""Keys of a built-in product; how it runs is stated by the settings of ctenrich."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_ROOTS = frozenset({"root", "0", "0:0", "root:root"})


def read_step(node: Node, number: int, subfolders: tuple[str, ...], findings: Findings) -> Step:
    """Read one item of ``models``.

    Parameters
    ----------
    node : Node
        The item.
    number : int
        Its number, from 1; names a step that has no name.
    subfolders : tuple of str
        Those of the flow, for a step that states none.
    findings : Findings
        Gets faults and notes.

    Returns
    -------
    Step
        Whatever could be read; it is used only if there is no fault.
    """
    entries = findings.entries(node, _KEYS, "a model")
    entries = _with_docker(entries, node, findings)
    place = node.place
    use, image = findings.text(entries.get("use"), "use"), findings.text(entries.get("image"), "image")
    command = _words(entries.get("command"), "command", findings)
    if not (use or image or command):
        findings.fault(place, "a model needs use, image or command")
    if use and (image or command):
        findings.fault(place, "a model has either use, or image or command")
    if use:
        for key in sorted(entries.keys() - _OF_BUILT_IN - {"image", "command"}):
            hint = "leave it out; --device and the settings of ctenrich state how products run"
            findings.fault(node.keys.get(key, place), f"{key} of a built-in product has no effect", hint)
    if "pull_before_exec" in entries:
        findings.note(
            entries["pull_before_exec"].place, "pull_before_exec has no effect: images are never pulled implicitly"
        )
    if image and "@sha256:" not in image:
        findings.note(entries["image"].place, f"{image} is not pinned: NAME@sha256:DIGEST always means the same image")
    gpu, device = _gpu(entries, findings)
    contract = findings.choice(entries.get("contract"), "contract", Contract, Contract.AUTO)
    if "config_dump_folder" in entries and not (contract is Contract.AUTO or CONTRACTS[contract].own_config_folder):
        message = f"config_dump_folder has no effect under the contract {contract}"
        findings.fault(node.keys["config_dump_folder"], message, "leave it out: the contract states where config is")
    name = findings.text(entries.get("name"), "name", f"step{number}")
    if _NAME.fullmatch(name) is None:
        findings.fault(place, f"a model cannot be called {name!r}", "use letters, digits, dot, _ and -")
    return Step(
        name=name,
        place=place,
        use=use,
        formats=_formats(entries.get("formats"), use, findings),
        image=image,
        command=command,
        entrypoint=_words(entries.get("entrypoint"), "entrypoint", findings),
        environment=_environment(entries.get("environment"), findings),
        contract=contract,
        inputs=_mounts(entries, ("inputs", "input_mounts"), (Mount(SRC, "/input"),), findings),
        outputs=_mounts(entries, ("outputs", "output_mounts"), (Mount(DST, "/output"),), findings),
        static_mounts=_mounts(entries, ("static_mounts",), (), findings),
        config=_plain(entries.get("config"), "config", findings),
        config_folder=_absolute(entries.get("config_dump_folder"), "/config", findings),
        subfolders=read_subfolders(entries.get("subfolders"), findings) or subfolders,
        gpu=gpu,
        device=device,
        tags=findings.texts(entries.get("tags"), "tags"),
        limits=_limits(entries, findings),
        priority=findings.whole(entries["priority"], "priority", (0, 5)) if "priority" in entries else None,
        timeout=findings.duration(entries.get("timeout"), "timeout", 1800.0),
        grid=findings.choice(entries.get("grid"), "grid", OutputGrid, OutputGrid.ANY),
        retries=findings.whole(entries.get("retries"), "retries", (0, 100)),
        may_be_empty=findings.flag(entries.get("may_be_empty"), "may_be_empty"),
    )


def _formats(node: Node | None, use: str, findings: Findings) -> tuple[ResultFormat, ...]:
    """Files in which other steps read the results of a built-in product."""
    if node is None:
        return (ResultFormat.DICOM,)
    if not use:
        findings.fault(node.place, "formats are those of a built-in product (use)")
    known = [one.value for one in ResultFormat]
    texts = [text for text in findings.texts(node, "formats") if findings.is_known(node.place, text, "formats", known)]
    if use.startswith("bodypart:") and set(texts) - {ResultFormat.DICOM}:
        findings.fault(node.place, "a body part model has no masks; its results are DICOM objects")
    if not texts:
        findings.fault(node.place, f"formats needs one of {', '.join(known)}")
    return tuple(dict.fromkeys(map(ResultFormat, texts)))


def _with_docker(entries: dict[str, Node], node: Node, findings: Findings) -> dict[str, Node]:
    """Entries of a model together with those of its ``docker_kwargs``."""
    docker = entries.get("docker_kwargs")
    if docker is None:
        return entries
    found = dict(entries)
    for key, value in findings.mapping(docker, "docker_kwargs").items():
        place = docker.keys[key]
        if key in _DOCKER:
            if _DOCKER[key] in entries:
                findings.fault(place, f"{key} is also stated outside docker_kwargs")
            if not value.is_null:
                found[_DOCKER[key]] = value
        elif key in _IGNORED:
            findings.note(place, f"docker_kwargs: {key} has no effect; cpus, memory and gpu state limits")
        elif key == "nano_cpus":
            number = findings.whole(value, key, (0, 10**9 - 1), 0)
            found["cpus"] = Node(str(number / 1e9), value.place, {}, "float")
        elif key == "network_disabled":
            if value.is_text and not findings.flag(value, key):
                findings.note(place, "network_disabled: false does not open the network; network: true does")
        elif key in _OPENING:
            findings.fault(place, f"docker_kwargs: {key} is not allowed; a container gets its mounts and nothing else")
        else:
            hint = did_you_mean(key, (*_DOCKER, *_IGNORED))
            findings.fault(place, f"docker_kwargs has no key {key}", hint)
    if "image" not in found and not node.is_null:
        findings.fault(docker.place, "docker_kwargs needs an image")
    return found


def _words(node: Node | None, name: str, findings: Findings) -> tuple[str, ...]:
    """A command as a list, or as one text that is split like a shell does."""
    if node is None or not node.is_text:
        return findings.texts(node, name)
    try:
        return tuple(shlex.split(node.text))
    except ValueError as error:
        findings.fault(node.place, f"{name}: {error}", "a quote is not closed")
        return ()


def _environment(node: Node | None, findings: Findings) -> tuple[tuple[str, str], ...]:
    if node is None:
        return ()
    if isinstance(node.value, tuple):
        pairs = [findings.text(one, "environment").partition("=")[::2] for one in node.value]
        return tuple(pairs)
    entries = findings.mapping(node, "environment")
    return tuple((key, "" if one.is_null else findings.text(one, f"environment {key}")) for key, one in entries.items())


def _mounts(
    entries: Mapping[str, Node], keys: tuple[str, ...], default: tuple[Mount, ...], findings: Findings
) -> tuple[Mount, ...]:
    """Mounts as ``name: /path``, or as one or several texts ``name:/path``."""
    given = [key for key in keys if key in entries]
    if not given:
        return default
    if len(given) > 1:
        findings.fault(entries[given[1]].place, f"{given[0]} and {given[1]} are the same: use one of them")
    node = entries[given[0]]
    if isinstance(node.value, dict):
        found = [(source, one, findings.text(one, given[0])) for source, one in node.value.items()]
    else:
        nodes = (node,) if node.is_text else findings.items(node, given[0])
        texts = [(one, findings.text(one, given[0])) for one in nodes]
        findings.note(node.place, f"{given[0]}: NAME:/PATH is taken as NAME: /PATH")
        found = [(text.partition(":")[0], one, text.partition(":")[2]) for one, text in texts]
    mounts = []
    for source, one, target in found:
        if _NAME.fullmatch(source) is None:
            findings.fault(one.place, f"a mount cannot be called {source!r}", "use letters, digits, dot, _ and -")
        mounts.append(Mount(source, _target(one.place, target, findings)))
    for target in {mount.target for mount in mounts}:
        if sum(mount.target == target for mount in mounts) > 1:
            findings.fault(node.place, f"two mounts have the path {target}")
    return tuple(mounts)


def _target(place: Position, text: str, findings: Findings) -> str:
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/") or ":" in text:
        hint = "write an absolute path inside the container, e.g. /input"
        findings.fault(place, f"{text!r} is no path for a mount", hint)
    return str(path)


def _absolute(node: Node | None, default: str, findings: Findings) -> str:
    return default if node is None else _target(node.place, findings.text(node, "config_dump_folder"), findings)


def _plain(node: Node | None, name: str, findings: Findings) -> dict[str, object]:
    if node is None:
        return {}
    findings.mapping(node, name)
    found = node.plain()
    return found if isinstance(found, dict) else {}


def read_subfolders(node: Node | None, findings: Findings) -> tuple[str, ...]:
    """Read the names of subfolders: keywords, whose values are taken, or names of folders.

    Parameters
    ----------
    node : Node or None
        A list, or one text.
    findings : Findings
        Gets faults.

    Returns
    -------
    tuple of str
    """
    found = findings.texts(node, "subfolders")
    for text in found:
        if node is not None and _NAME.fullmatch(text) is None:
            findings.fault(node.place, f"{text!r} is neither a keyword nor the name of a folder")
    return found


def _gpu(entries: Mapping[str, Node], findings: Findings) -> tuple[bool, str]:
    """Whether a GPU is needed, and which; ``gpu`` may name it."""
    device = findings.text(entries.get("device"), "device")
    node = entries.get("gpu")
    if node is None:
        return bool(device), device
    text = findings.text(node, "gpu", "false").strip()
    if text.casefold() in ("true", "yes", "on", "false", "no", "off", ""):
        asked = text.casefold() in ("true", "yes", "on")
        return asked or bool(device), device
    return True, device or text


def _limits(entries: Mapping[str, Node], findings: Findings) -> Limits:
    root = findings.flag(entries.get("root"), "root")
    user = findings.text(entries.get("user"), "user")
    if user in _ROOTS and not root:
        findings.fault(entries["user"].place, "a container does not run as root unless root: true says so")
    cpus = findings.text(entries.get("cpus"), "cpus", "0")
    if re.fullmatch(r"\d{1,4}(\.\d{1,9})?", cpus) is None:
        findings.fault(entries["cpus"].place, f"cpus cannot be {cpus!r}", "write a number, e.g. 2 or 0.5")
        cpus = "0"
    return Limits(
        cpus=float(cpus),
        memory=_bytes(entries.get("memory"), "memory", findings),
        shared_memory=_bytes(entries.get("shared_memory"), "shared_memory", findings),
        network=findings.flag(entries.get("network"), "network"),
        root=root,
        user=user,
    )


def _bytes(node: Node | None, name: str, findings: Findings) -> int:
    if node is None:
        return 0
    found = _SIZE.fullmatch(findings.text(node, name, "0").strip())
    if found is None:
        findings.fault(node.place, f"{name} cannot be {findings.text(node, name)!r}", "write e.g. 512m or 8g")
        return 0
    return int(float(found[1]) * _FACTORS[found[2].lower()])
