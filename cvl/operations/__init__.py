"""What command line, Python and guardian share, with runs of any provider."""
