"""What is on disk: tables behind a URI, captures as Arrow files, and how both are held to be whole.

run_store: tables. captures: records. seal, sealed_tables: digests of what was written.
"""

from scaleinv_ray.store.captures import (
    is_complete,
    read_record,
    read_records,
    write_record,
    write_records,
)
from scaleinv_ray.store.run_store import ASIDE, PART, Listing, Store, write_atomically

__all__ = [
    "ASIDE",
    "PART",
    "Listing",
    "Store",
    "is_complete",
    "read_record",
    "read_records",
    "write_atomically",
    "write_record",
    "write_records",
]
