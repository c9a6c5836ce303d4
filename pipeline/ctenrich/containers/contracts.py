"""Where images of other systems expect their input, output and configuration, as a table of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["CONTRACTS", "ContractPaths"]


@dataclass(frozen=True, kw_only=True)
class ContractPaths:
    """Paths and environment that an image finds."""

    input: str = "/input"
    output: str = "/output"
    config: str = "/config/config.yaml"
    """File with the configuration of the step."""
    environment: Mapping[str, str] = field(default_factory=dict)
    config_variable: str = ""
    """Variable with the path of that file, if there is one."""
    own_config_folder: bool = False
    """Whether `config_dump_folder` may replace the folder of `config`."""
    task: bool = False
    """Whether the file is a task of mercure, which is always there and has the configuration in it."""
    name_form: str = "{Modality}_{SeriesInstanceUID}_{SOPInstanceUID}"
    """Name of a received file without its suffix, with keywords of attributes in braces."""


_HOLOSCAN = "/var/holoscan"
CONTRACTS: Mapping[str, ContractPaths] = {
    "raddeploy": ContractPaths(own_config_folder=True),
    "plain": ContractPaths(environment={"INPUT": "/input", "OUTPUT": "/output"}, own_config_folder=True),
    "mhub": ContractPaths(
        input="/app/data/input_data", output="/app/data/output_data", config="/app/data/config/config.yaml"
    ),
    "map": ContractPaths(
        input=f"{_HOLOSCAN}/input",
        output=f"{_HOLOSCAN}/output",
        config=f"{_HOLOSCAN}/config/app.yaml",
        config_variable="HOLOSCAN_CONFIG_PATH",
        environment={
            "HOLOSCAN_INPUT_PATH": f"{_HOLOSCAN}/input",
            "HOLOSCAN_OUTPUT_PATH": f"{_HOLOSCAN}/output",
            "HOLOSCAN_WORKDIR": _HOLOSCAN,
            "MONAI_INPUTPATH": f"{_HOLOSCAN}/input",
            "MONAI_OUTPUTPATH": f"{_HOLOSCAN}/output",
        },
    ),
    "mercure": ContractPaths(
        input="/tmp/data",  # noqa: S108  a path inside the container
        output="/tmp/output",  # noqa: S108
        config="/tmp/data/task.json",  # noqa: S108
        task=True,
        name_form="{SeriesInstanceUID}#{SOPInstanceUID}",
        environment={"MERCURE_IN_DIR": "/tmp/data", "MERCURE_OUT_DIR": "/tmp/output"},  # noqa: S108
    ),
}
"""Name of a contract -> its paths."""
