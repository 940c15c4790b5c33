"""The only package that imports ray: actors, tasks, the driver, preflight."""
