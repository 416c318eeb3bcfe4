"""What the models are asked, and the two answers that need no network.

A sample is (origin, t). Known at t: that origin's events with at < t. Asked, over [t, t + 2 h):

- delay:     mean of `delay_min` over the departures; cancellations have no delay and are not in it.
             Asked only where at least 5 departures happen (`departures >= 5`).
- disrupted: that mean > 30 minutes, or cancelled / (departed + cancelled) > 10 %. With no departure
             at all only the second can hold.

A sample exists where at least 5 events (departures and cancellations) happen in those two hours.
"""

from datetime import datetime, timezone
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from flights_data import HOUR_MS, MINUTE_MS

AHEAD_MS = 2 * HOUR_MS
MIN_EVENTS = 5
DISRUPTED_DELAY_MIN = 30.0
DISRUPTED_CANCELLED = 0.10
NEW_YORK = ZoneInfo("America/New_York")


class History(NamedTuple):
    """One origin's events in topic order."""

    origin: str
    at: np.ndarray  # [events] UTC ms, ascending
    delay: np.ndarray  # [events] minutes, NaN when cancelled
    ids: np.ndarray  # [events, fields], elapsed 0


class Samples(NamedTuple):
    """Parallel arrays."""

    key: np.ndarray  # index into the histories
    t: np.ndarray  # UTC ms
    delay: np.ndarray  # target, minutes; NaN when fewer than 5 departures
    disrupted: np.ndarray  # target, 0 or 1


def month_start(month):
    """The instant at which a month of 2013 begins in New York; 13 is January 2014."""
    year, month = (2013, month) if month <= 12 else (2014, month - 12)
    return int(datetime(year, month, 1, tzinfo=NEW_YORK).timestamp() * 1000)


def summary(delay):
    """-> (departures, mean delay or NaN, cancelled share or 0, disrupted?) of a slice of events."""
    departed = delay[~np.isnan(delay)]
    cancelled = 1.0 - len(departed) / len(delay) if len(delay) else 0.0
    mean = departed.mean() if len(departed) else np.nan
    disrupted = bool(mean > DISRUPTED_DELAY_MIN) or cancelled > DISRUPTED_CANCELLED
    return len(departed), mean, cancelled, disrupted


def between(history, begin, end):
    return slice(*np.searchsorted(history.at, [begin, end], side="left"))


def samples(histories, first_month, last_month, step_ms):
    """All samples whose two hours lie within the months, t on multiples of `step_ms`."""
    begin, end = month_start(first_month), month_start(last_month + 1)
    rows = []
    for key, history in enumerate(histories):
        for t in range(begin, end - AHEAD_MS + 1, step_ms):
            ahead = history.delay[between(history, t, t + AHEAD_MS)]
            if len(ahead) >= MIN_EVENTS:
                departures, mean, _, disrupted = summary(ahead)
                rows.append((key, t, mean if departures >= MIN_EVENTS else np.nan, disrupted))
    key, t, delay, disrupted = zip(*rows)
    return Samples(np.array(key), np.array(t), np.array(delay, np.float32), np.array(disrupted, np.float32))


def persistence(histories, asked, default_delay):
    """The last two hours go on. -> (delay, disrupted 0/1, score for ranking).

    Where nobody departed in the last two hours (before dawn) the delay is `default_delay`, the mean
    target of the training months: kinder than zero. The ranking score is how far the rule is filled.
    """
    out = []
    for key, t in zip(asked.key, asked.t):
        history = histories[key]
        departures, mean, cancelled, disrupted = summary(history.delay[between(history, t - AHEAD_MS, t)])
        mean = mean if departures else default_delay
        out.append((mean, disrupted, max(mean / DISRUPTED_DELAY_MIN, cancelled / DISRUPTED_CANCELLED)))
    return [np.array(column, float) for column in zip(*out)]


def hand_features(histories, asked, window):
    """What a careful person would count over the same last `window` events. -> [samples, features]"""
    rows = []
    for key, t in zip(asked.key, asked.t):
        history = histories[key]
        end = int(np.searchsorted(history.at, t, side="left"))
        at, delay = history.at[max(0, end - window):end], history.delay[max(0, end - window):end]
        clock = datetime.fromtimestamp(t / 1000, timezone.utc).astimezone(NEW_YORK)
        row = [key, clock.hour + clock.minute / 60, (t - at[-1]) / MINUTE_MS if len(at) else np.nan]
        for hours in (0.25, 0.5, 1, 2, 4, 24):
            recent = delay[at >= t - hours * HOUR_MS]
            departed = recent[~np.isnan(recent)]
            if len(departed):
                row += [len(recent), departed.mean(), np.median(departed), departed.max(), departed.min(),
                        (departed > 15).mean(), (departed > 60).mean()]
            else:
                row += [len(recent)] + [np.nan] * 6
            row.append(1 - len(departed) / len(recent) if len(recent) else np.nan)
        departed = delay[~np.isnan(delay)]
        row += [departed[-n:].mean() if len(departed) >= n else np.nan for n in (1, 3, 5, 10, 20, 40)]
        rows.append(row)
    return np.array(rows, dtype=np.float32)
