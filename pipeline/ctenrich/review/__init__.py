"""Reviews of products by people: read from files, kept with the run, and what is accepted by them."""
