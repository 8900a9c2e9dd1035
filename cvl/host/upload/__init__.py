"""What goes to a machine: which files of the example, and of them what is not there yet."""
