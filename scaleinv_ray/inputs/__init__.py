"""What users write and what is said of it: paths, JSON, names, messages. No dependency."""
