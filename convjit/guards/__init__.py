"""What a program depends on besides its arguments, and whether it is still what it was."""
