"""Coded quantity and unit of a map, and whether its values can be of that quantity."""

from __future__ import annotations

from ctenrich.codes.mappings import Code, MapQuantity, load_map_quantities
from ctenrich.codes.terminology import code_fault
from ctenrich.errors import InputError, UsageError, did_you_mean
from ctenrich.reasons import Reason

__all__ = ["check_range", "find_quantity"]


def find_quantity(quantity: str, unit: str) -> MapQuantity:
    """Find the codes of a quantity and its unit.

    Parameters
    ----------
    quantity : str
        A name of mappings/maps.csv without its unit, e.g. ``adc``, or a code ``VALUE,SCHEME,MEANING``.
    unit : str
        UCUM code, e.g. ``mm2/s``; always stated, because most quantities are in use with several units.

    Returns
    -------
    MapQuantity
        Without limits for a code of the user's own.

    Raises
    ------
    UsageError
        BAD_PARAMETER for a quantity that is not known, a unit that is missing, not UCUM, or not one of the quantity.
    """
    fault = "no unit is stated" if not unit else code_fault("UCUM", unit)
    if fault:
        raise UsageError(Reason.BAD_PARAMETER, f"the unit of the map: {fault}", "state it in UCUM, e.g. --unit mm2/s")
    if "," in quantity:
        value, scheme, meaning = ([part.strip() for part in quantity.split(",", 2)] + ["", ""])[:3]
        wrong = code_fault(scheme, value) if scheme and meaning else "it needs VALUE,SCHEME,MEANING"
        if wrong:
            raise UsageError(Reason.BAD_PARAMETER, f"the code of the quantity: {wrong}", "e.g. 113041,DCM,ADC")
        own = Code(value, scheme, meaning[:64])
        return MapQuantity(
            name=meaning, quantity=own, unit=Code(unit, "UCUM", unit), lowest=None, highest=None, least_peak=None
        )
    rows = load_map_quantities()
    if f"{quantity}[{unit}]" in rows:
        return rows[f"{quantity}[{unit}]"]
    units = [row.unit.value for name, row in rows.items() if name.partition("[")[0] == quantity]
    if units:
        hint = f"known: {', '.join(units)}; another one with --quantity VALUE,SCHEME,MEANING"
        raise UsageError(Reason.BAD_PARAMETER, f"{quantity} in {unit} is not known", hint)
    names = sorted({name.partition("[")[0] for name in rows})
    hint = did_you_mean(quantity, names, f"known: {', '.join(names)}, or a code VALUE,SCHEME,MEANING")
    raise UsageError(Reason.BAD_PARAMETER, f"the quantity {quantity!r} is not known", hint)


def check_range(quantity: MapQuantity, smallest: float, largest: float, name: str) -> None:
    """Refuse values that the quantity cannot have in its unit.

    Parameters
    ----------
    quantity : MapQuantity
        Its limits; without limits nothing is checked.
    smallest, largest : float
        Of the map, in the unit.
    name : str
        Of the file, for the message.

    Raises
    ------
    InputError
        BAD_MAP.
    """
    found = f"{name} has values from {smallest:g} to {largest:g}"
    what = f"{quantity.quantity.meaning} in {quantity.unit.value}"
    low, high, peak = quantity.lowest, quantity.highest, quantity.least_peak
    if (low is not None and smallest < low) or (high is not None and largest > high):
        limits = " to ".join(f"{limit:g}" if limit is not None else "..." for limit in (low, high))
        raise InputError(Reason.BAD_MAP, f"{found}: {what} is {limits}", "check the unit")
    if peak is not None and largest < peak:
        message = f"{found}: none is as large as {what} would be"
        raise InputError(Reason.BAD_MAP, message, "the values seem to have another unit: check it")
