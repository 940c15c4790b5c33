"""Pure numerical kernels that several families of invariants share: arrays in, arrays out."""
