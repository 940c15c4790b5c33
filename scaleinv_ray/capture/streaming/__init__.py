"""Models larger than memory: layer by layer, all sequences through each (torch)."""
