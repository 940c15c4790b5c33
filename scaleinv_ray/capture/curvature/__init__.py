"""Products with the Hessian and the GGN, and Lanczos on them."""
