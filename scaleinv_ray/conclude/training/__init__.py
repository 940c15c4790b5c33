"""What happens over training: onsets, transitions, stages, and whether capabilities emerge."""
