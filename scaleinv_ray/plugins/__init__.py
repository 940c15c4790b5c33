"""Invariants from outside the package: files, modules and installed packages of the user's."""
