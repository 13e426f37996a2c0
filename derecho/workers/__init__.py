"""Workers: each does one kind of work, one batch at a time."""
