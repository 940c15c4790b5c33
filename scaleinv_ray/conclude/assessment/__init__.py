"""One model against a series, by intervals and one conformal p value; and against its parent."""
