"""Images with partial labels. `tasktokens.datasets.open` opens them; nothing heavy is imported here."""
