"""What the runners share whose job is one container that cvl does not start itself."""
