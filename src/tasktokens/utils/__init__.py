"""Tools that know nothing of tasks: safe reading, atomic writing, processes, signals, pictures."""
