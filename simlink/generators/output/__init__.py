"""Records into files and tables, by one process or several."""
