"""One module per group of commands; a function takes the arguments and returns the exit status."""
