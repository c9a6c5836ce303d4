"""Body part regression: slice scores, and the landmarks and regions found from them."""
