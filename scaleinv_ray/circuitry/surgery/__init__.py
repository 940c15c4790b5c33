"""A live model taken apart: hooks on stock classes, reruns of a tail, gradients of readers."""
