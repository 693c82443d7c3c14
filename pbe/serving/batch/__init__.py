"""Paint many pictures with one model: the rows of a file, or every box of a data set."""
