"""What users get to read: tables, folders of IR and sources, a line on the terminal."""
