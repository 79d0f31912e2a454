"""Speed, memory and quality as they stand in the docs; each script writes one file of research/results."""
