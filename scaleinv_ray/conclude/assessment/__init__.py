"""One model against a series: prediction intervals, and one conformal p value for all of them."""
