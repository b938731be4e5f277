"""The verbs of the command line: each imports one function and prints what it returns."""
