"""The machines: what they have, whether they agree, and when they come and go."""
