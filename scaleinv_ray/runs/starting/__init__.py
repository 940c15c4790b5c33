"""What has to hold before a run may start, and that it is alone in its folder."""
