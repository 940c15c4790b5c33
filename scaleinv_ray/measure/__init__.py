"""An invariant meets a record: measurements, and what of a run is done."""
