"""dcmqi's JSON: names of its schemas, and codes in its form."""

from __future__ import annotations

from ctenrich.codes.mappings import Code

__all__ = ["SEG_SCHEMA", "SR_SCHEMA", "json_code"]

_SCHEMAS = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/"
SEG_SCHEMA = f"{_SCHEMAS}seg-schema.json#"
SR_SCHEMA = f"{_SCHEMAS}sr-tid1500-schema.json#"


def json_code(code: Code) -> dict[str, str]:
    """Return a code as an object with its value, scheme and meaning."""
    return {"CodeValue": code.value, "CodingSchemeDesignator": code.scheme, "CodeMeaning": code.meaning}
