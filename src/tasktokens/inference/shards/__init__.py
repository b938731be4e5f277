"""Discovery over any number of images: units of work that any process of any machine can do, and do again."""
