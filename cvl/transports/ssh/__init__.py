"""A machine reached by the user's own OpenSSH: connections kept, cut, and made again."""
