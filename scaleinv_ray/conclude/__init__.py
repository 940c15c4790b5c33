"""What the measured numbers say: from rows to verdicts, predictions, transitions and classes.

aggregation: which rows count, and their values. conservation, training, universality: the three
questions asked of them. concluding writes the tables of a run folder.
"""
