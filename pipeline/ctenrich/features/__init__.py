"""Feature vectors of networks (deep features): their models, the crops that they see, the vectors of a product."""
