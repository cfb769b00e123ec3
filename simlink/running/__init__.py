"""Sending at a pace: the schedule, the run, the job in the background, the report."""
