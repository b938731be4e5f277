"""What is shown of runs: reports, curves, tables and the demo."""
