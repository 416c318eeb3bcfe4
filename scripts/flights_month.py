"""One month of the flights, so that a run is short."""

import os


def month_of(source, to, month):
    """Copies the CSV files from one folder to another, of departures and weather only the month."""
    os.makedirs(to)
    for name in ["flights", "weather", "airlines", "airports", "planes"]:
        place = {"flights": 1, "weather": 2}.get(name)
        with open(f"{source}/{name}.csv") as read, open(f"{to}/{name}.csv", "w") as written:
            for number, line in enumerate(read):
                if number == 0 or place is None or line.split(",")[place] == str(month):
                    written.write(line)
