"""Teacher and student as one module each: image in, score out. They know no files."""
