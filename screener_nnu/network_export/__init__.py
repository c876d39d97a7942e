"""The student as a file for other programs, with all that they need to make our map."""
