"""Speed and memory beside the peers: ratios of one run on one machine, with equal results checked first."""
