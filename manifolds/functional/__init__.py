"""Pure formulas shared by several manifolds. Nothing here knows what a manifold is."""
