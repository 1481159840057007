"""One module for each library: how its users call its losses, and the same in our terms."""
