"""What all that runs on AWS shares: sessions, logins, errors, and who is asked."""
