"""The time axis: decoded to datetime64 or cftime, checked, and cut to a span that the user wrote as text.

Most files carry CF units that xarray has decoded already. Some keep bare integers and say elsewhere what they count:
in the axis' own `units`, or in the data set's `time_units` ("hours since 1940-01-01 00:00 (proleptic_gregorian)").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

_SINCE = re.compile(r"^\s*(?P<units>\w+\s+since\s+.+?)\s*(?:\(\s*(?P<calendar>\w+)\s*\))?\s*$", re.IGNORECASE)
_STAMP = r"\d{4}(?:-\d{2}(?:-\d{2}(?:[T ]\d{2}(?::\d{2}(?::\d{2})?)?)?)?)?"
_SPAN = re.compile(rf"^\s*(?:(?P<one>{_STAMP})|(?P<start>{_STAMP})?\s*[:/]\s*(?P<stop>{_STAMP})?)\s*$")


def is_datetime(values: NDArray[Any]) -> bool:
    """Tell whether an array holds datetime64 or cftime dates."""
    if np.issubdtype(values.dtype, np.datetime64):
        return True
    return values.dtype == object and values.size > 0 and isinstance(values.ravel()[0], cftime.datetime)


def decode(axis: xr.DataArray, attributes: Mapping[str, Any]) -> xr.DataArray:
    """Turn a time axis into dates, in nanoseconds where they fit.

    Args:
        axis: the coordinate, of any shape, decoded or not.
        attributes: the data set's attributes, where undecoded units may be kept.

    Raises:
        ValueError: if the axis holds numbers and nothing says what they count.
    """
    if not is_datetime(axis.values):
        said = axis.attrs.get("units", attributes.get("time_units"))
        match = _SINCE.match(str(said)) if said is not None else None
        if match is None or not np.issubdtype(axis.dtype, np.number):
            found = f"its units are {said!r}" if said is not None else "no units say what they count"
            raise ValueError(
                f"the time axis {axis.name!r} holds {axis.dtype} values and {found}: "
                "expected a units attribute such as 'hours since 1970-01-01'"
            )
        calendar = match["calendar"] or axis.attrs.get("calendar") or attributes.get("time_calendar") or "standard"
        coded = xr.Variable(axis.dims, axis.values, {"units": match["units"], "calendar": str(calendar).lower()})
        try:
            decoded = xr.conventions.decode_cf_variable("time", coded)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"the time axis {axis.name!r} cannot be decoded from {said!r}: {error}") from error
        axis = axis.copy(data=decoded.values)
    if np.issubdtype(axis.dtype, np.datetime64):
        return axis.copy(data=_as_nanoseconds(axis.values))
    return axis


def _as_nanoseconds(values: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    """Use the one resolution that a store gives back, unless the dates are too far away for it."""
    seconds = values.astype("datetime64[s]")
    known = seconds[~np.isnat(seconds)]
    bounds = np.array(["1678-01-01", "2262-01-01"], dtype="datetime64[s]")
    fits = known.size == 0 or (known.min() >= bounds[0] and known.max() < bounds[1])
    return values.astype("datetime64[ns]") if fits else values


def calendar_of(times: NDArray[Any]) -> str:
    """Name the CF calendar of an array of dates."""
    return str(times[0].calendar) if times.dtype == object else "proleptic_gregorian"


def label(time: Any) -> str:  # noqa: ANN401 - datetime64 or cftime
    """Write one date as ISO text, to the second at most.

    >>> label(np.datetime64("2019-03-01T06:00", "ns"))
    '2019-03-01T06:00'
    """
    text = str(np.datetime_as_string(time, unit="s")) if isinstance(time, np.datetime64) else time.isoformat()[:19]
    return text.removesuffix(":00")


def hours_since_1970(times: NDArray[Any]) -> NDArray[np.float64]:
    """Count hours of dates of any calendar, in that calendar.

    >>> hours_since_1970(np.array(["1970-01-02T06"], dtype="datetime64[ns]"))
    array([30.])
    """
    if np.issubdtype(times.dtype, np.datetime64):
        return np.asarray((times - np.datetime64("1970-01-01")) / np.timedelta64(1, "s") / 3600.0)
    start = type(times[0])(1970, 1, 1, calendar=times[0].calendar)
    return np.array([(time - start).total_seconds() / 3600.0 for time in times])


def check_increasing(times: NDArray[Any], where: str) -> None:
    """Refuse a missing, duplicate or unsorted time, naming the first.

    Raises:
        ValueError: where the axis is not strictly increasing.
    """
    if np.issubdtype(times.dtype, np.datetime64) and np.isnat(times).any():
        raise ValueError(f"{where} has a missing time (NaT) at position {int(np.isnat(times).argmax())}")
    stuck = np.flatnonzero(times[1:] <= times[:-1])
    if stuck.size:
        earlier, later = times[stuck[0]], times[stuck[0] + 1]
        if later == earlier:
            raise ValueError(f"{where} has the time {label(later)} twice: each time may appear once")
        raise ValueError(f"{where} is not sorted by time: {label(later)} comes after {label(earlier)}")


def span_slice(times: NDArray[Any], span: str) -> slice:
    """Find the positions of a span of time, both ends included to their own precision.

    Args:
        times: strictly increasing dates.
        span: `START:STOP`, either end open, or one stamp: YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh[:mm[:ss]].

    Raises:
        ValueError: if the text is no span, or its dates do not exist in the calendar of the times.
    """
    match = _SPAN.match(span)
    if match is None or not any(match.groupdict().values()):
        raise ValueError(f"time {span!r} is not a span: expected e.g. 2019-03-01:2019-03-24 (days included) or 2019-03")
    start, stop = (match["one"], match["one"]) if match["one"] else (match["start"], match["stop"])
    index = xr.DataArray(times, dims="time", coords={"time": times}).indexes["time"]
    try:
        found = index.slice_indexer(start, stop)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"time {span!r} names a date that the calendar {calendar_of(times)} does not have") from error
    first, last, _ = found.indices(len(times))
    return slice(first, max(first, last))


def check_span(span: str) -> None:
    """Refuse a span whose start lies after its stop.

    Raises:
        ValueError: if the text is no span, or runs backwards.
    """
    match = _SPAN.match(span)
    if match and match["start"] and match["stop"]:
        length = min(len(match["start"]), len(match["stop"]))
        start, stop = (match[end].replace(" ", "T")[:length] for end in ("start", "stop"))
        if start > stop:
            raise ValueError(f"time {span!r} runs backwards: {match['start']} comes after {match['stop']}")
