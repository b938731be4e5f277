"""Images with partial labels. `tasktokens.data.source` opens them; nothing heavy is imported here."""
