"""When records are due: schedules, what they are made of, and how they are put together."""
