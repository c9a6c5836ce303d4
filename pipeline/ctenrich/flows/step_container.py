"""The container or program of a step: its contract, the manifests of its image, and what it sees and may do."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ctenrich.containers.contracts import CONTRACTS, ContractPaths
from ctenrich.containers.engines import ContainerSpec, Engine, HostMount
from ctenrich.containers.packages import PackageManifest, may_be_package, read_package
from ctenrich.errors import UsageError
from ctenrich.flows.records import Contract, Step
from ctenrich.flows.static_files import static_path
from ctenrich.reasons import Reason
from ctenrich.workspace import write_bytes

__all__ = ["StepProgram", "container_spec", "copy_inputs", "prepare_step"]


_CONFIG_FOLDER = "/config"
"""Folder of the configuration of a step that states none."""


@dataclass(frozen=True, kw_only=True)
class StepProgram:
    """What runs a step, and where it finds its files."""

    engine: Engine
    image: str
    """ID of the image, or hash of the program."""
    contract: str
    paths: ContractPaths
    manifest: PackageManifest | None = None
    """Of a MONAI Application Package."""

    def timeout(self, step: Step) -> float:
        """Seconds that a step may take: the shorter of those of flow and package."""
        stated = self.manifest.timeout if self.manifest is not None else 0.0
        return min(step.timeout, stated) if stated > 0 else step.timeout


def prepare_step(step: Step, engine: Engine) -> StepProgram:
    """Find the image of a step and its contract.

    Parameters
    ----------
    step : Step
        A step with an image or a command.
    engine : Engine
        What runs it.

    Returns
    -------
    StepProgram

    Raises
    ------
    UsageError
        NOT_FOUND: the image is not there; BAD_FLOW: the package needs what the step does not give it, or the step
        states a folder of the configuration that the contract of the image does not know.
    """
    image = engine.image_id(step.image or step.command[0])
    contract, manifest = step.contract, None
    if not step.image:
        contract = Contract.PLAIN if contract is Contract.AUTO else contract
    elif contract in (Contract.AUTO, Contract.MAP):
        words = " ".join(engine.entrypoint(step.image))
        if contract is Contract.AUTO and "mhub.run" in words:
            contract = Contract.MHUB
        elif contract is Contract.MAP or may_be_package(engine, step.image):
            manifest = read_package(engine, step.image)
            package = contract is Contract.MAP or manifest is not None or "/var/holoscan" in words
            contract = Contract.MAP if package else Contract.RADDEPLOY
        else:
            contract = Contract.RADDEPLOY
    paths = CONTRACTS[contract.value]
    if step.config_folder != _CONFIG_FOLDER and not paths.own_config_folder:
        message = f"line {step.place.line}: {step.name}: config_dump_folder has no effect under the contract {contract}"
        raise UsageError(Reason.BAD_FLOW, message, "leave it out: the contract states where config is")
    if manifest is not None:
        _check_needs(step, manifest)
        paths = _paths_of(paths, manifest)
    return StepProgram(engine=engine, image=image, contract=contract.value, paths=paths, manifest=manifest)


def _check_needs(step: Step, manifest: PackageManifest) -> None:
    where = f"line {step.place.line}: {step.name}"
    if manifest.gpus and not step.gpu:
        raise UsageError(Reason.BAD_FLOW, f"{where}: the package needs a GPU", "write gpu: true")
    if 0 < step.limits.memory < manifest.memory:
        message = f"{where}: the package needs {manifest.memory} bytes of memory, and may have {step.limits.memory}"
        raise UsageError(Reason.BAD_FLOW, message, "raise memory")


def _paths_of(paths: ContractPaths, manifest: PackageManifest) -> ContractPaths:
    """Paths of a package, of which its variables tell it."""
    places = {
        "HOLOSCAN_INPUT_PATH": manifest.input,
        "HOLOSCAN_OUTPUT_PATH": manifest.output,
        "MONAI_INPUTPATH": manifest.input,
        "MONAI_OUTPUTPATH": manifest.output,
    }
    environment = {**paths.environment, **manifest.environment, **places}
    return replace(paths, input=manifest.input, output=manifest.output, environment=environment)


# ---------------------------------------------------------------- files


def copy_inputs(inputs: Mapping[str, Mapping[PurePosixPath, Path]], folder: Path) -> None:
    """Copy the input of a step, readable by the user in the container: a link would let it change the original.

    Parameters
    ----------
    inputs : mapping
        Mount -> its files by their path in it.
    folder : Path
        Gets a folder for each mount.
    """
    for source, files in inputs.items():
        (folder / source).mkdir(parents=True, exist_ok=True)
        for place, path in files.items():
            target = folder / source / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        _open_for_reading(folder / source)


def _open_for_reading(folder: Path) -> None:
    """Let other users read a folder: the user in the container is another one, and a listener's files are its own."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _put_config(step: Step, program: StepProgram, key: str, folder: Path) -> HostMount | None:
    """Write the configuration; returns its mount, unless it is in the folder of the input."""
    paths = program.paths
    if not (step.config or paths.task):
        return None
    config = PurePosixPath(paths.config)
    content: dict[str, object] = dict(step.config)
    if paths.task:
        content = {"id": key[:32], "info": {"action": "process"}, "process": {"settings": content}}
    first = next((one.source for one in step.inputs if _target(one.target, paths) == str(config.parent)), "")
    place = folder / "in" / first if first else folder / "config"
    place.mkdir(parents=True, exist_ok=True)
    write_bytes(place / config.name, json.dumps(content, indent=1).encode())
    _open_for_reading(place)
    if first:
        return None
    return HostMount(host=place, target=step.config_folder if paths.own_config_folder else str(config.parent))


def _target(target: str, paths: ContractPaths) -> str:
    """Path of a mount: the usual ones are where the contract has them."""
    return {"/input": paths.input, "/output": paths.output}.get(target, target)


# ---------------------------------------------------------------- what it sees and may do


def container_spec(
    step: Step, program: StepProgram, key: str, folder: Path, *, static: str, owner: str = ""
) -> ContainerSpec:
    """Return the container of a step whose input was copied; folders for its output and configuration are made.

    Parameters
    ----------
    step : Step
        The step.
    program : StepProgram
        What runs it.
    key : str
        Hash over everything that decides about its output.
    folder : Path
        Folder of the step, with ``in``.
    static : str
        Folder of the static files of the station.
    owner : str
        Hash of the station or run; empty: none.

    Returns
    -------
    ContainerSpec

    Raises
    ------
    UsageError
        NOT_FOUND: a static file.
    """
    paths, limits, manifest = program.paths, step.limits, program.manifest
    mounts = [HostMount(host=folder / "in" / one.source, target=_target(one.target, paths)) for one in step.inputs]
    for one in step.outputs:
        host = folder / "out" / one.source
        host.mkdir(parents=True)
        host.chmod(0o777)  # the user in the container is another one
        mounts.append(HostMount(host=host, target=_target(one.target, paths), writable=True))
    mounts += [HostMount(host=static_path(static, one.source), target=one.target) for one in step.static_mounts]
    config = _put_config(step, program, key, folder)
    mounts += [config] if config is not None else []
    environment = {"FLOW_UID": key[:32], "CONTAINER_TAG": step.image} if program.contract == "raddeploy" else {}
    if paths.config_variable and step.config:
        environment[paths.config_variable] = paths.config
    work = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
    command = step.command
    if manifest is not None and not (command or step.entrypoint or program.engine.entrypoint(step.image)):
        command = manifest.command
    return ContainerSpec(
        name=f"ctenrich-{work[:16]}-{key[:8]}",
        work=work,
        owner=owner,
        seconds=program.timeout(step),
        image=program.image,
        mounts=tuple(mounts),
        environment={**paths.environment, **environment, **dict(step.environment)},
        command=command,
        entrypoint=step.entrypoint,
        cpus=limits.cpus,
        memory=limits.memory,
        shared_memory=limits.shared_memory or (manifest.shared_memory if manifest is not None else 0),
        network=limits.network,
        root=limits.root,
        user=limits.user,
        gpu=f"nvidia.com/gpu={step.device or 'all'}" if step.gpu else "",
    )
