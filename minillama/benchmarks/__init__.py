"""What `python -m minillama.bench` measures, and against whom."""
