"""Speed and memory compared with other tools: ratios from one run on one machine, after checking that results agree."""
