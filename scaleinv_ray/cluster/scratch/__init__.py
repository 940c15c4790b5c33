"""Captures on the disks of the nodes: where they lie, and how one gets to another node."""
