"""``python -m tasktokens``: the command line."""

from tasktokens.cli import main

if __name__ == "__main__":
    main()
