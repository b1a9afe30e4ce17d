"""A lowered graph as a file that another release of torch replays."""
