"""How commands and files reach a machine: one file per transport."""
