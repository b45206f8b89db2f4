"""Numbers and values as people read them."""
import json
import math
from typing import Any

DASH = "–"


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def count(value: Any) -> str:
    """9673 → `9,673`; a list counts its items."""
    if isinstance(value, (list, dict)):
        value = len(value)
    return f"{value:,.0f}" if is_number(value) and math.isfinite(value) else DASH


def short(value: Any, digits: int = 4) -> str:
    """Four significant digits, without an exponent where a person would not write one."""
    if not is_number(value):
        return DASH
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        return f"{float(f'{value:.{digits}g}'):,.{digits + 3}f}".rstrip("0").rstrip(".")
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def scaled(value: Any, unit: str, base: int = 1000) -> str:
    """1.2e9 → `1.2 G` + unit. `base` 1024 gives KiB, MiB, …"""
    if not is_number(value):
        return DASH
    power = 0
    while abs(value) >= base and power < 6:
        value, power = value / base, power + 1
    prefix = ("", "k", "M", "G", "T", "P", "E")[power] if base == 1000 else ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")[power]
    return f"{short(value, 3)} {prefix}{unit}"


def duration(seconds: Any) -> str:
    if not is_number(seconds):
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def plain(value: Any) -> str:
    """A value of a config or a record on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
