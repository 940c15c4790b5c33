"""Where checkpoints are: folders, runs of steps, the hub, records made elsewhere."""
