"""Speed, measured: `python -m benchmarks VERB`. One module per verb; what came out stands in NOTES.md."""
