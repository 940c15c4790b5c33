"""What the files of a checkpoint hold, read from config.json and headers: no weight is loaded."""
