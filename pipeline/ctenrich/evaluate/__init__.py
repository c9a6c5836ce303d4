"""Compare the results of a run: products with each other, lung heights, landmarks with annotations."""
