"""``tasktokens compare``: methods x seeds x label settings x data, as one table and one page."""
