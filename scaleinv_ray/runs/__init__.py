"""The life of a run folder: analysed under a lock, looked at, swept, watched."""
