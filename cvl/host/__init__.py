"""A machine with a shell: what runs there, what speaks to it, and files there and back."""
